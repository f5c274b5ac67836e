#!/usr/bin/env bash
# Measures nin-wgpu and its peers in turn on this machine, and prints images/s and the ratios.
#
#   benches/compare.sh [--quick] [--models nin,nin-cifar] [--modes train,infer] [--peers pytorch,ncnn,burn]
#                      [--batch-size B] [--rounds N] [--out DIR] [--results]
#
# Every run of a peer comes right after a run of ours with the same model, mode and batch, and every such pair
# is repeated (--rounds, default 3), so that other work on the machine hits both. f32 throughout.
#   --quick        one round, three steps each, two minutes at most for a run
#   --batch-size   for all cases; default: training 8 (nin) and 32 (nin-cifar), inference 16
#   --out          default benches/runs/DATE-HOST/: results.jsonl, table.md, log; git ignores benches/runs/, so a
#                  run worth keeping needs `git add -f`
#   --results      also puts the table into benches/RESULTS.md
# On an idle machine with two cores and no GPU three rounds take about an hour, of which Burn's first run,
# when its tuning is cold, takes 10 to 15 minutes. An interrupted run prints what it has.
#
# Needs Linux, bash, Python 3.8 or newer, and $NIN_WGPU (default: target/release/nin-wgpu, built with cargo where it is
# missing). Each peer needs what benches/peers/README.md says; one that cannot run is named with the reason. ncnn
# goes into benches/.venv with pip, Burn is built with cargo: these two need a package registry the first time.
# PyTorch is that of $PYTORCH_PYTHON, or of the first of python3 and /usr/bin/python3 that has it.
# Exit codes: 0 done; 1 ours could not be measured; 2 usage; 130 interrupted.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

say() { printf 'compare: %s\n' "$*" >&2; }
usage() {
  say "$1"
  sed -n '4,5s/^# *//p' "$0" >&2
  exit 2
}

models=nin,nin-cifar modes=train,infer peers=pytorch,ncnn,burn
# A cold run of Burn tunes for minutes before its first step.
batch_size='' rounds=3 steps=5 limit=600 burn_budget=1200 out='' keep=no
while [ $# -gt 0 ]; do
  case $1 in
    --quick) rounds=1 steps=3 limit=120 burn_budget=120 && shift && continue ;;
    --results) keep=yes && shift && continue ;;
    -h | --help) sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --models | --modes | --peers | --batch-size | --rounds | --out) [ $# -gt 1 ] || usage "$1 needs a value" ;;
    *) usage "unknown: $1" ;;
  esac
  case $1 in
    --models) models=$2 ;;
    --modes) modes=$2 ;;
    --peers) peers=$2 ;;
    --batch-size) batch_size=$2 ;;
    --rounds) rounds=$2 ;;
    --out) out=$2 ;;
  esac
  shift 2
done
[[ ,$models, =~ ^(,(nin|nin-cifar))+,$ ]] || usage "--models takes nin and nin-cifar, not '$models'"
[[ ,$modes, =~ ^(,(train|infer))+,$ ]] || usage "--modes takes train and infer, not '$modes'"
[[ ,$peers, =~ ^(,(pytorch|ncnn|burn))+,$ ]] || usage "--peers takes pytorch, ncnn and burn, not '$peers'"
[[ $rounds =~ ^[1-9][0-9]*$ ]] || usage "--rounds takes a number, not '$rounds'"
[[ $batch_size =~ ^([1-9][0-9]*)?$ ]] || usage "--batch-size takes a number, not '$batch_size'"

out=${out:-$here/runs/$(date +%Y-%m-%d-%H%M%S)-$(hostname)}
mkdir -p "$out"
results=$out/results.jsonl log=$out/log
scratch=$(mktemp -d)
finished=no
# Prints what there is, also after Ctrl-C.
finish() {
  local code=$?
  trap - EXIT
  rm -rf "$scratch"
  if [ -s "$results" ]; then
    {
      printf 'Measured %s, commit %s, host %s (%s cores, load average %s at the start)%s.\n\n' \
        "$started" "$commit" "$(hostname)" "$(nproc)" "$load" "$([ $finished = yes ] || printf ', cut short')"
      python3 "$here/report.py" compare "$results"
    } | tee "$out/table.md"
    say "written to $out"
    if [ $keep = yes ] && [ $finished = yes ]; then
      python3 "$here/report.py" insert "$here/RESULTS.md" compare "$out/table.md"
      say "put into benches/RESULTS.md"
    fi
  fi
  exit $code
}
started=$(date '+%Y-%m-%d %H:%M')
load=$(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo '?')
commit=$(git -C "$root" describe --always --dirty --abbrev=9 --exclude='*' 2>/dev/null || echo unknown)
trap finish EXIT
trap 'exit 130' INT TERM

# --- what is there

ours=${NIN_WGPU:-$root/target/release/nin-wgpu}
if [ ! -x "$ours" ] && [ -z "${NIN_WGPU:-}" ] && command -v cargo >/dev/null; then
  say "building nin-wgpu"
  (cd "$root" && cargo build --release >&2)
fi
[ -x "$ours" ] || { say "no program at $ours: run 'make build', or set NIN_WGPU" && exit 1; }
"$ours" bench --help >/dev/null 2>&1 || { say "$ours has no bench verb" && exit 1; }

batch_of() { # MODEL MODE
  case $batch_size-$1-$2 in
    -nin-train) echo 8 ;;
    -nin-cifar-train) echo 32 ;;
    -*) echo 16 ;;
    *) echo "$batch_size" ;;
  esac
}

missing() { # PEER REASON: a line for the table, one for each model and mode
  local model mode
  say "$1 is left out: $2"
  for model in ${models//,/ }; do
    for mode in ${modes//,/ }; do
      [ "$1" != ncnn ] || [ "$mode" = infer ] || continue
      python3 - "$1" "$model" "$mode" "$(batch_of "$model" "$mode")" "$2" >"$scratch/missing" <<'PY'
import json, sys
peer, model, mode, batch, reason = sys.argv[1:]
print(json.dumps({"peer": peer, "model": model, "mode": mode, "batch_size": int(batch), "precision": "f32", "skipped": reason}))
PY
      python3 "$here/report.py" add "$results" --from peer "$scratch/missing"
    done
  done
}

# Names of the runs: burn stands for its two backends.
runs=()
for peer in ${peers//,/ }; do
  case $peer in
    pytorch)
      pytorch=''
      for python in ${PYTORCH_PYTHON:-python3 /usr/bin/python3}; do
        if "$python" -c 'import torch' 2>/dev/null; then pytorch=$python && break; fi
      done
      if [ -n "$pytorch" ]; then runs+=(pytorch); else missing pytorch "no Python with PyTorch: set PYTORCH_PYTHON"; fi
      ;;
    ncnn)
      [[ ,$modes, == *,infer,* ]] || continue
      ncnn=$here/.venv/bin/python
      if ! "$ncnn" -c 'import ncnn, numpy' 2>/dev/null; then
        say "installing ncnn into benches/.venv"
        { python3 -m venv "$here/.venv" && "$ncnn" -m pip install -q ncnn numpy; } >>"$log" 2>&1 || true
      fi
      if "$ncnn" -c 'import ncnn, numpy' 2>/dev/null; then runs+=(ncnn); else missing ncnn "it could not be installed, see the log"; fi
      ;;
    burn)
      # The release may be newer than this Rust, or the registry out of reach.
      burn=$here/peers/burn
      say "building Burn's program (minutes, the first time)"
      if ! command -v cargo >/dev/null; then
        missing burn-wgpu "no cargo" && missing burn-flex "no cargo"
      elif cargo build -q --release --locked --manifest-path "$burn/Cargo.toml" --target-dir "$burn/target" >>"$log" 2>&1; then
        runs+=(burn-wgpu burn-flex)
      else
        missing burn-wgpu "it could not be built, see the log" && missing burn-flex "it could not be built, see the log"
      fi
      ;;
  esac
done

# --- measuring

# limited SECONDS COMMAND...: its output goes to $scratch/output, its messages to the log.
limited() {
  local code=0 seconds=$1
  shift
  printf '\n$ %s\n' "$*" >>"$log"
  timeout --foreground -k 10 "$seconds" "$@" >"$scratch/output" 2>>"$log" || code=$?
  [ $code -ne 130 ] || exit 130
  return $code
}

measure_ours() { # MODEL MODE BATCH PAIR
  if limited "$limit" "$ours" bench --model "$1" --mode "$2" --batch-size "$3" --steps $((steps * 2)) --json; then
    python3 "$here/report.py" add "$results" --from bench "$scratch/output" \
      --set "pair=$4" --set "version=$("$ours" --version | cut -d' ' -f2-)+$commit"
  else
    say "ours failed on $1 $2, batch $3: $(tail -1 "$log")"
    exit 1
  fi
}

measure_peer() { # PEER MODEL MODE BATCH PAIR
  local case_s=$((limit / 8)) code=0
  case $1 in
    pytorch)
      limited $((limit + 60)) "$pytorch" "$here/peers/pytorch.py" --models "$2" --modes "$3" --batch-sizes "$4" --precisions f32 \
        --steps "$steps" --case-s "$case_s" --budget-s "$limit" || code=$?
      ;;
    ncnn)
      limited $((limit + 60)) "$ncnn" "$here/peers/ncnn_infer.py" --models "$2" --batch-sizes "$4" --precisions f32 \
        --steps "$steps" --case-s "$case_s" --budget-s "$limit" || code=$?
      ;;
    burn-*)
      # Burn keeps what it tuned in the target folder of the project it is started in.
      limited $((burn_budget + 60)) env -C "$burn" target/release/burn-peer --backend "${1#burn-}" --model "$2" --mode "$3" \
        --batch-size "$4" --steps "$steps" --budget-s "$burn_budget" || code=$?
      ;;
  esac
  # Lines that were printed before a failure count.
  python3 "$here/report.py" add "$results" --from peer "$scratch/output" --set "pair=$5"
  [ $code -eq 0 ] || say "$1 failed with exit code $code on $2 $3, batch $4: $(tail -1 "$log")"
}

pair=0
for ((round = 1; round <= rounds; round++)); do
  for model in ${models//,/ }; do
    for mode in ${modes//,/ }; do
      batch=$(batch_of "$model" "$mode")
      for peer in "${runs[@]}"; do
        [ "$peer" != ncnn ] || [ "$mode" = infer ] || continue
        pair=$((pair + 1))
        say "round $round/$rounds: $model $mode, batch $batch: ours, then $peer"
        measure_ours "$model" "$mode" "$batch" "$pair"
        measure_peer "$peer" "$model" "$mode" "$batch" "$pair"
      done
      if [ ${#runs[@]} -eq 0 ]; then measure_ours "$model" "$mode" "$batch" alone; fi
    done
  done
done
finished=yes
