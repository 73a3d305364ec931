#!/usr/bin/env bash
# Everything that a lent GPU is for, in ten minutes, the most telling first; what it writes is under $OUT.
#
#     OUT=results bash benchmarks/gpu_lease.sh            # on the machine, in the repository's root
#     OUT=results SMALL=--small bash benchmarks/gpu_lease.sh    # a rehearsal on any machine
#     OUT=results MODEL=FOLDER bash benchmarks/gpu_lease.sh     # benchmarks/real_live.py too, as soon as FOLDER is there
set -u
OUT=${OUT:?where the results go}
SMALL=${SMALL:-}
MODEL=${MODEL:-}
DEVICE=${DEVICE:-cuda}
mkdir -p "$OUT"
export PYTHONPATH=src:benchmarks:tests/engine HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1

step() { # step NAME SECONDS COMMAND…: says how it ended and how long it took; the next one runs whatever came of it
  local name=$1 most=$2 start=$SECONDS
  shift 2
  timeout "$most" "$@" > "$OUT/$name.log" 2>&1
  echo "$name: exit code $? after $((SECONDS - start)) s" | tee -a "$OUT/steps.txt"
}
parts() { # parts NAME…: arguments of gpu.py
  printf -- '--part %s ' "$@"
}

step device 20 python3 -c "import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"
step tests 100 python3 -m pytest -q -m gpu -W default -n 8 -k "not nearly_full" tests/engine/test_gpu.py
step full 60 python3 -m pytest -q -m gpu -W default -k nearly_full tests/engine/test_gpu.py
# shellcheck disable=SC2046
step gpu 150 python3 benchmarks/gpu.py "$OUT/gpu.json" $SMALL $(parts copy_bandwidth_gb_s roofline beside long_prompt cmc)
if [ -n "$MODEL" ]; then
  step waiting 300 bash -c "until [ -e '$MODEL.ready' ]; do sleep 1; done"
  # shellcheck disable=SC2086
  step real 400 python3 benchmarks/real_live.py "$MODEL" --device "$DEVICE" --out "$OUT/real" ${REAL:---dtype bfloat16}
fi
step profiles 90 python3 benchmarks/gpu.py --profiles "$OUT/profiles" $SMALL
# shellcheck disable=SC2046
step more 150 python3 benchmarks/gpu.py "$OUT/gpu.json" $SMALL $(parts beside_8b agreement beside_32 beside_generate_batch)
