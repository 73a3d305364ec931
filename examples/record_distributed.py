"""Record a store and answer questions with several processes, each with its own copy of the model.

accelerate launch examples/record_distributed.py STORE                                   # a process for each GPU
accelerate launch --multi_gpu --num_processes 2 examples/record_distributed.py STORE     # without GPUs: 2 on the CPU

Killed, it goes on where it stopped, with as many processes as you like.
"""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator

import tts_generate
from tts_generate import tiny

accelerator = Accelerator(cpu=not torch.accelerator.is_available())
model, tokenizer = tiny.load()  # or AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-4B", dtype="bfloat16")
model.to(accelerator.device)
tts_generate.enable(model, tokenizer=tokenizer)

# Each process records a part of the branches of every question; the store is one.
store = tts_generate.record(model, tokenizer, tiny.questions("record")[:4], sys.argv[1], branches=8)
if accelerator.is_main_process:
    branches = len(store.trajectories())
    print(f"{branches} branches of {len(store.questions)} questions by {accelerator.num_processes} processes")

# Each process answers some of the questions; all of them get all answers.
questions = tiny.questions("test")[:4]
texts = [question.question for question in questions]
inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left").to(accelerator.device)
output = tts_generate.generate_distributed(model, **inputs, controller="cmc", beta=0.1, seed=0)
if accelerator.is_main_process:
    right = sum(answer == question.gold_answer for answer, question in zip(output.answers, questions, strict=True))
    print(f"{right} of {len(questions)} right, {output.total_cost}")
accelerator.end_training()
