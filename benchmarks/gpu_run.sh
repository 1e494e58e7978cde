#!/usr/bin/env bash
# One run of a GPU session: benchmarks/gpu_run.sh first|second [--device cpu --toy] (docs/lab/tuning.md).
# Uses what `make gpu-pack` has packed; results go to $OUT (default build/gpu).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pack=build/gpu-pack
out=${OUT:-build/gpu}
export PYTHONUNBUFFERED=1
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
if [ ! -x .venv/bin/python ] && [ -d $pack ]; then  # links instead of an install
  export PYTHONPATH=$PWD:$PWD/$pack/site
  ln -sfn ../benchmarks autoreid_fast/benchmarks
  ln -sfn ../kernels autoreid_fast/kernels
  cp $pack/*.so autoreid_fast/
fi
# Native code that hangs outlasts the deadline of the program itself.
exec timeout -k 5 560 "$python" -m autoreid_fast.benchmarks.harness.gpu.run "$@" --out "$out"
