"""The page of this metric on the Hub."""

from __future__ import annotations

import evaluate
from evaluate.utils import launch_gradio_widget

if __name__ == "__main__":
    launch_gradio_widget(evaluate.load("pass_at_k.py"))
