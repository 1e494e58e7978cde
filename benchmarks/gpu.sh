#!/usr/bin/env bash
# Build, test, check and measure on a machine with an NVIDIA GPU. A call ends within ten minutes; the next call
# does what is left. docs/lab/tuning.md has the order of calls.
#
#   benchmarks/gpu.sh [build|test|sanitize|bench|step|evaluate|search|summary ...]     all by default
#
# Logs and results go to $OUT (default build/gpu). `summary`, which ends every call and needs no GPU, merges the
# results into benchmarks/results/<gpu>.json, copies that file to $OUT, and prints it as a table.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

END=570  # seconds per call, without the summary
ALL="build test sanitize bench step evaluate search"
# The GPU tests of ops with small shapes, because compute-sanitizer makes them a hundred times slower; none with a
# CUDA graph, which torch cannot record without its caching allocator.
SMALL="strides or slices or ties or maximum or beyond or gradients or (bits and 13) \
  or (part_attention and parity and shape3) or (rank_gallery and cpu and 700)"
CASES=$(ls benchmarks/*.py | sed -E 's|.*/(.*)\.py|\1|' | grep -vx -e __init__ -e supernet_step | tr '\n' ' ')

export PYTHONUNBUFFERED=1
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
out=$(mkdir -p "${OUT:-build/gpu}" && cd "${OUT:-build/gpu}" && pwd)
results=build/gpu/results

autoreid() { "$python" -m autoreid_fast "$@"; }

# limit SECONDS COMMAND...: ends a command, with a message, after SECONDS or at the end of the call
limit() {
  local seconds=$(( $1 < END - SECONDS ? $1 : END - SECONDS )); shift
  [ $seconds -gt 0 ] || { echo "gpu.sh: no time left in this call for: $*"; return 124; }
  timeout -k 10 "$seconds" "$@"
  local status=$?
  [ $status = 124 ] && echo "gpu.sh: not done within $seconds s: $*"
  return $status
}

loads() { "$python" -c "
from autoreid_fast import ops
missing = [library for library in ops.status().libraries if not library.loaded]
raise SystemExit('; '.join(f'{library.device} library: {library.reason}' for library in missing))"; }

build() {  # uses the libraries in the tree if they load, and builds them if not
  local install="-m pip install -q --no-build-isolation --no-deps --editable ."
  "$python" -c "import autoreid_fast.benchmarks" 2>/dev/null ||
    AUTOREID_FAST_BACKEND=reference limit 120 "$python" $install || return 1
  loads || AUTOREID_FAST_CUDA=1 limit 400 "$python" $install && loads && autoreid doctor
}

# Every test that needs a GPU; `summary` counts a skipped one as a failure.
gpu_tests() {
  limit 420 "$python" -m pytest -m gpu -n 8 -p no:cacheprovider \
    --junitxml "$results/tests.xml" tests/*/test_*_gpu.py tests/*/*/test_*_gpu.py
}

sanitize() {
  limit 420 "$python" tests/tools/sanitize.py gpu -k "$SMALL" tests/ops/test_*_gpu.py tests/ops/*/test_*_gpu.py
  local status=$?
  echo "{\"exit_status\": $status}" > "$results/sanitizers.json"
  return $status
}

bench() {  # one process per case, so that a crash costs one case; torch.compile's work is done before, in parallel
  local status=0
  limit 240 "$python" -m autoreid_fast.benchmarks.harness.gpu.warm_up $CASES
  for case in $CASES; do
    limit 150 "$python" -m autoreid_fast bench "$case" --device cuda --seconds 0.2 \
      --json "$results/bench-$case.json" > "$out/bench-$case.txt" 2>&1 || { status=1; tail -n 3 "$out/bench-$case.txt"; }
  done
  cat "$out"/bench-*.txt > "$out/bench.txt" && rm -f "$out"/bench-*.txt
  return $status
}

profiled() {  # PRECISION: first compiles a hundred Triton kernels, which later processes find in the cache
  limit 200 "$python" -m autoreid_fast profile --device cuda --precision "$1" --pairs 20 \
    --out "build/gpu/profile-$1" && cp "build/gpu/profile-$1/profile.json" "$results/profile-$1.json"
}

step() {
  local status=0
  profiled float32 || status=1
  limit 420 "$python" -m autoreid_fast bench supernet_step --device cuda --seconds 2 \
    --json "$results/bench-supernet_step.json" || status=1
  profiled bfloat16 || status=1
  return $status
}

evaluate() {
  local status=0
  for case in rank_gallery k_reciprocal nearest; do
    limit 270 "$python" -m autoreid_fast bench $case-msmt17 --device cuda --json "$results/bench-$case-msmt17.json" ||
      status=1
  done
  return $status
}

search() {  # a short search with the paper's C, image size and batch, on synthetic pedestrians
  local data=build/gpu/pedestrians runs=build/gpu/runs
  rm -rf "$runs"
  limit 120 "$python" -m autoreid_fast data synth "$data" &&
    limit 120 "$python" -m autoreid_fast search --run "$runs/search" --device cuda --epochs 40 \
      --alpha.decay-epochs 12 30 --data.kind synthetic --data.root "$data" &&
    limit 240 "$python" -m autoreid_fast train --run "$runs/train" --network "$runs/search" --device cuda \
      --epochs 40 --decay-epochs 26 34 --data.kind synthetic --data.root "$data" &&
    cp "$runs/search/metrics.json" "$results/search.json" && cp "$runs/train/metrics.json" "$results/train.json"
}

summary() { "$python" -m autoreid_fast.benchmarks.harness.gpu.results "$results" "$out"; }

parts=${*:-$ALL}
for part in $parts; do
  case " $ALL summary " in *" $part "*) ;; *)
    echo "gpu.sh: no part '$part': choose from $ALL summary" >&2; exit 2 ;;
  esac
done
if [ "$parts" != summary ] && ! "$python" -c "import torch; raise SystemExit(not torch.cuda.is_available())"; then
  echo "gpu.sh: no CUDA device that torch can use on this machine: nothing was run" >&2
  exit 1
fi
rm -rf "$results"  # results of earlier calls are in benchmarks/results already
mkdir -p "$results"
status=0
for part in $parts; do
  [ "$part" = summary ] && continue
  echo "== $part, $(date -u +%H:%M:%S)"
  name=$part; [ "$part" = test ] && name=gpu_tests
  $name 2>&1 | tee -a "$out/log.txt"
  [ "${PIPESTATUS[0]}" = 0 ] && continue
  status=1
  echo "== $part failed"
  [ "$part" = build ] && exit 1
done
summary || status=1
exit $status
