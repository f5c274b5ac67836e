#!/usr/bin/env bash
# Measures everything worth knowing on a real GPU, in order of value, in nine minutes, and prints one report.
#
#   [OUT=DIR] [NIN_WGPU=FILE] benches/gpu.sh [--list]
#
# Parts: the self-check; nin and nin-cifar, training and inference, in every precision there is, at batch 128, 1,
# 32 and 256, with PyTorch's figures beside them; the roofline; then the recipe `train --model nin --data
# fashion-mnist` with what time is left; torch.compile last. Each part has a time limit of its own; one that fails
# is named in the report, and the script goes on. --list prints the parts with their limits.
#
# It can be called again: parts that are done in $OUT/results.jsonl are skipped, failed ones are tried again, the
# training run is resumed. On a fresh machine $OUT starts as a copy of benches/gpu-carry/previous/.
#
# Made for a GPU machine without network and without cargo, on which a copy of the repository lies. That needs:
#   - Linux on x86-64, bash, coreutils, tar, and a `python3` with PyTorch for CUDA ($PYTHON names another one;
#     without PyTorch its parts fail, the others run);
#   - benches/gpu-carry/, made beforehand by benches/pack-gpu.sh and copied along (git ignores it): the program,
#     Fashion-MNIST, and the Vulkan loader with the GLVND libraries that NVIDIA's driver links to. Of the libraries
#     only those that the machine lacks are used. The driver itself belongs to the machine; its manifest (ICD file)
#     is also looked for in /usr/local/*/share/vulkan/icd.d.
# Without that folder the program is target/release/nin-wgpu, and the system's data set and loader are used.
#
# $OUT (default benches/runs/gpu) gets at most eight files, none over 16 MiB: results.jsonl, report.md, log,
# train-metrics.jsonl, train-state.tar.gz.NN (to resume: `cat` them together) and train-weights.tar.gz.NN.
# OUT's report goes into benches/RESULTS.md with: benches/report.py insert benches/RESULTS.md gpu $OUT/report.md
# GPU_BUDGET_S (default 540) is the time for everything.
# Exit codes: 0 every part is done; 1 some failed or are left for another call; 2 usage.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
carry=$here/gpu-carry
out=${OUT:-$here/runs/gpu}
budget=${GPU_BUDGET_S:-540}
python=${PYTHON:-python3}
program=${NIN_WGPU:-}
if [ -z "$program" ]; then
  program=$root/target/release/nin-wgpu
  if [ -x "$carry/nin-wgpu" ]; then program=$carry/nin-wgpu; fi
fi

say() { printf 'gpu: %s\n' "$*" >&2; }
list=no
case ${1:-} in
  '') ;;
  --list) list=yes ;;
  -h | --help) sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" && exit 0 ;;
  *) say "unknown: $1; usage: benches/gpu.sh [--list]" && exit 2 ;;
esac
[[ $budget =~ ^[1-9][0-9]*$ ]] || { say "GPU_BUDGET_S is a number of seconds, not '$budget'" && exit 2; }

results=$out/results.jsonl log=$out/log
work=''
# Kept for the report and for packing up.
reserve=15

left() { echo $((budget - SECONDS)); }
report_py() { "$python" "$here/report.py" "$@"; }

# is_done PART: this or an earlier call finished it.
is_done() { [ -f "$results" ] && grep -qF "{\"part\": \"$1\", \"status\": \"done\"" "$results"; }

prepare() {
  mkdir -p "$out"
  work=$(mktemp -d)
  if [ ! -s "$results" ] && [ -s "$carry/previous/results.jsonl" ] && [ ! "$carry/previous" -ef "$out" ]; then
    cp "$carry/previous/"* "$out/"
    say "going on from benches/gpu-carry/previous"
  fi
  if compgen -G "$out/train-state.tar.gz.*" >/dev/null; then
    cat "$out"/train-state.tar.gz.* | tar -C "$work" -xzf - || say "the earlier training run could not be unpacked"
  fi

  # A library of our own in front of the machine's could clash with its driver.
  mkdir "$work/lib"
  local library known
  known=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null || true)
  for library in "$carry"/lib/*; do
    if [ -e "$library" ] && ! grep -qF "$(basename "$library") " <<<"$known"; then ln -s "$library" "$work/lib/"; fi
  done
  export LD_LIBRARY_PATH=$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

  local elsewhere=() manifest
  for manifest in /usr/local/*/share/vulkan/icd.d/*.json; do
    if [ -e "$manifest" ]; then elsewhere+=("$manifest"); fi
  done
  if [ ${#elsewhere[@]} -gt 0 ] && [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}${VK_ADD_DRIVER_FILES:-}" ]; then
    local joined
    joined=$(IFS=:; echo "${elsewhere[*]}")
    if compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null || compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null; then
      export VK_ADD_DRIVER_FILES=$joined
    else
      export VK_DRIVER_FILES=$joined
    fi
    say "Vulkan driver: $joined"
  fi
  if [ -d "$carry/data" ]; then export NIN_WGPU_DATA=${NIN_WGPU_DATA:-$carry/data}; fi
}

missed=()
# Set where the program says that the precision is not there: one line for all cases.
no_mixed=no

# note PART STATUS START [DETAIL | --detail-file FILE]
note() {
  local name=$1 status=$2 start=$3
  shift 3
  if [ $# -eq 1 ]; then set -- --detail "$1"; fi
  report_py part "$results" --name "$name" --status "$status" --seconds $((SECONDS - start)) "$@"
  say "$(printf '%3d s left  %-10s %s' "$(left)" "$status" "$name")"
  case $status in done | "not there") ;; *) missed+=("$name") ;; esac
}

# part KIND NAME LIMIT COMMAND...: KIND is what it prints: bench, peer (lines) or text.
part() {
  local kind=$1 name=$2 limit=$3 start=$SECONDS code=0
  shift 3
  if [ $list = yes ]; then printf '%4d s  %s\n' "$limit" "$name" && return; fi
  if is_done "$name"; then say "done before: $name" && return; fi
  if [ "$kind-$no_mixed" = bench-yes ] && [[ $name == *mixed* ]]; then return; fi
  local available=$(($(left) - reserve))
  if [ $available -lt 5 ]; then note "$name" left "$start" "no time left" && return; fi
  if [ $available -lt "$limit" ]; then limit=$available; fi
  printf '\n== %s\n$ %s\n' "$name" "$*" >>"$log"
  timeout --foreground -k 5 "$limit" "$@" >"$work/output" 2>"$work/messages" </dev/null || code=$?
  cat "$work/messages" >>"$log"
  if [ "$kind" = text ]; then cat "$work/output" >>"$log"; fi

  case $kind-$code in
    bench-0)
      if ! report_py add "$results" --from bench "$work/output" --set "version=$version" 2>>"$log"; then
        note "$name" failed "$start" "the answer is no JSON document of bench"
        return
      fi
      ;;
    # Lines that were printed before a failure count.
    peer-*) report_py add "$results" --from peer "$work/output" ;;
  esac
  case $kind-$code in
    text-0) note "$name" "done" "$start" --detail-file "$work/output" ;;
    *-0) note "$name" "done" "$start" "" ;;
    *-124 | *-137) note "$name" "timed out" "$start" "after $limit s" ;;
    # A usage error is how the program refuses a precision.
    bench-2)
      local status=failed
      if [[ $name == *mixed* ]]; then status="not there" no_mixed=yes; fi
      note "$name" "$status" "$start" --detail-file "$work/messages"
      ;;
    text-*) note "$name" "failed" "$start" --detail-file "$(if [ -s "$work/output" ]; then echo "$work/output"; else echo "$work/messages"; fi)" ;;
    *) note "$name" "failed" "$start" --detail-file "$work/messages" ;;
  esac
}

bench() { # MODEL MODE BATCH PRECISION
  local steps
  case $3 in 1) steps=300 ;; 32) steps=100 ;; 128) steps=60 ;; *) steps=40 ;; esac
  part bench "bench $1 $2 $3 $4" 40 "$program" bench --model "$1" --mode "$2" --batch-size "$3" --precision "$4" --steps $steps --json
}

benches() { # BATCHES PRECISION
  local batch model mode
  for batch in $1; do
    for model in nin nin-cifar; do
      for mode in train infer; do bench $model $mode "$batch" "$2"; done
    done
  done
}

pytorch() { # NAME LIMIT ARGUMENTS...
  local name=$1 limit=$2 device=()
  shift 2
  # For a rehearsal without a GPU.
  if [ -n "${PYTORCH_DEVICE:-}" ]; then device=(--device "$PYTORCH_DEVICE"); fi
  part peer "$name" "$limit" "$python" "$here/peers/pytorch.py" --steps 10 --case-s 2 --budget-s $((limit - 10)) "${device[@]}" "$@"
}

machine() {
  local gpu='unknown' start=$SECONDS
  if [ $list = yes ]; then return; fi
  if command -v nvidia-smi >/dev/null; then
    gpu=$(timeout 20 nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>>"$log" | head -1) || gpu='nvidia-smi failed'
  fi
  timeout 30 "$program" devices --json >"$work/devices" 2>>"$log" || note "devices" failed "$start" "see the log: no Vulkan adapter?"
  cat "$work/devices" >>"$log"
  "$python" - "$gpu" "$version" "$(uname -srm)" "$(nproc)" "$work/devices" >>"$results" <<'PY'
import datetime, json, sys
gpu, version, system, cores, devices = sys.argv[1:]
try:
    adapters = ", ".join(f"{d['name']} ({d['backend']}, {d['driver']})" for d in json.load(open(devices)))
except ValueError:
    adapters = "none"
date = datetime.date.today().isoformat()
print(json.dumps({"machine": {"date": date, "program": version, "GPU": gpu, "adapters": adapters, "system": f"{system}, {cores} cores"}}))
PY
}

recipe() {
  local name="train nin on fashion-mnist" start=$SECONDS code=0 command
  if [ $list = yes ]; then printf '%4s    %s\n' rest "$name" && return; fi
  if is_done "$name"; then say "done before: $name" && return; fi
  # Saving and packing take time, too.
  local limit=$(($(left) - reserve - 15))
  if [ $limit -lt 20 ]; then note "$name" left "$start" "no time left" && return; fi
  if [ -d "$work/train/state" ]; then
    command=(train --resume "$work/train")
  else
    rm -rf "$work/train"
    command=(train --model nin --data fashion-mnist --out "$work/train")
  fi
  printf '\n== %s\n$ %s\n' "$name" "$program ${command[*]}" >>"$log"
  # The program saves on an interrupt and ends with 130.
  timeout --foreground --preserve-status -s INT -k 20 $limit "$program" "${command[@]}" >"$work/output" 2>"$work/messages" </dev/null || code=$?
  cat "$work/output" "$work/messages" >>"$log"
  keep_training
  case $code in
    0) note "$name" "done" "$start" "$(best_accuracy)" ;;
    130) note "$name" "left" "$start" "interrupted and saved; $(best_accuracy)" ;;
    *) note "$name" "failed" "$start" --detail-file "$work/messages" ;;
  esac
}

best_accuracy() {
  "$python" - "$work/train/metrics.jsonl" <<'PY'
import json, sys
try:
    epochs = [r for r in map(json.loads, open(sys.argv[1])) if "test_acc" in r]
    best = max(epochs, key=lambda r: r["test_acc"])
    print(f"{len(epochs)} epochs, best test accuracy {best['test_acc']:.4f} in epoch {best['epoch']}")
except (OSError, ValueError, KeyError):
    print("no epoch yet")
PY
}

# The training run as files that fit through a narrow door.
keep_training() {
  [ -s "$work/train/metrics.jsonl" ] || return 0
  cp "$work/train/metrics.jsonl" "$out/train-metrics.jsonl"
  "$python" - "$work/train/metrics.jsonl" >"$work/epochs" <<'PY'
import json, sys
for line in open(sys.argv[1]):
    record = json.loads(line)
    if "test_acc" in record:
        print(json.dumps({"epoch_of": "nin on fashion-mnist", **record}))
PY
  report_py add "$results" --from peer "$work/epochs"
  (
    cd "$work"
    shopt -s nullglob
    rm -f "$out"/train-state.tar.gz.* "$out"/train-weights.tar.gz.*
    tar -czf - train/config.toml train/metrics.jsonl train/train.log* train/state | split -b 15M -d - "$out/train-state.tar.gz."
    weights=(train/best.safetensors* train/last.safetensors* train/curves.svg*)
    if [ ${#weights[@]} -gt 0 ]; then tar -czf - "${weights[@]}" | split -b 15M -d - "$out/train-weights.tar.gz."; fi
  ) || say "the training run could not be packed"
}

finish() {
  local code=$?
  trap - EXIT
  if [ -s "$results" ]; then report_py gpu "$results" | tee "$out/report.md"; fi
  if [ -n "$work" ]; then rm -rf "$work"; fi
  exit $code
}

if [ $list = no ]; then
  command -v "$python" >/dev/null || { say "no $python here: set PYTHON" && exit 1; }
  [ -x "$program" ] || { say "no program at $program: carry one (benches/pack-gpu.sh), or set NIN_WGPU" && exit 1; }
  trap finish EXIT
  trap 'exit 1' INT TERM
  prepare
  version=$("$program" --version | cut -d' ' -f2-)
  if [ -s "$carry/commit" ] && [ "$program" = "$carry/nin-wgpu" ]; then version+=" $(cat "$carry/commit")"; fi
fi

machine
part text "check" 100 "$program" check
benches 128 f32
pytorch "pytorch eager, batch 128" 110 --batch-sizes 128 --execution eager
part bench "roofline" 60 "$program" bench --model nin --mode train --batch-size 128 --steps 10 --roofline --json
benches 128 mixed
benches "1 32 256" f32
benches "1 32 256" mixed
pytorch "pytorch eager, batch 1" 60 --batch-sizes 1 --execution eager
pytorch "pytorch eager, batch 32 and 256" 100 --batch-sizes 32,256 --execution eager --layouts nhwc
recipe
pytorch "pytorch compile, batch 128" 300 --batch-sizes 128 --execution compile --layouts nhwc --modes train
pytorch "pytorch compile, batch 1" 200 --batch-sizes 1 --execution compile --layouts nhwc --modes infer

if [ $list = no ] && [ ${#missed[@]} -gt 0 ]; then
  say "not done: $(IFS=,; echo "${missed[*]}")"
  exit 1
fi
