#!/usr/bin/env bash
# Everything that a lent GPU is for, in eight minutes, the most telling first; what it writes is under $OUT.
#
#     OUT=results bash benchmarks/gpu_lease.sh            # on the machine, in the repository's root
#     OUT=results SMALL=--small bash benchmarks/gpu_lease.sh    # a rehearsal on any machine
set -u
OUT=${OUT:?where the results go}
SMALL=${SMALL:-}
mkdir -p "$OUT"
export PYTHONPATH=src:benchmarks:tests/engine HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

step() { # step NAME SECONDS COMMAND…: says how it ended and how long it took; the next one runs whatever came of it
  local name=$1 most=$2 start=$SECONDS
  shift 2
  timeout "$most" "$@" > "$OUT/$name.log" 2>&1
  echo "$name: exit code $? after $((SECONDS - start)) s" | tee -a "$OUT/steps.txt"
}

step device 20 python -c "import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"
step tests 120 python -m pytest -q -m gpu tests/engine/test_gpu.py
step gpu 240 python benchmarks/gpu.py "$OUT/gpu.json" $SMALL
step profiles 120 python benchmarks/gpu.py --profiles "$OUT/profiles" $SMALL
