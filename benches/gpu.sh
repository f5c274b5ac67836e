#!/usr/bin/env bash
# Measures everything worth knowing on a GPU machine without network and cargo, lent for a quarter of an hour.
#
#   [OUT=DIR] benches/gpu.sh first       about 200 s: does it work, and where does the time go?
#   [OUT=DIR] benches/gpu.sh second      what is left: comparison with PyTorch in alternation, the recipes
#   [OUT=DIR] benches/gpu.sh data        takes in what was carried of CIFAR-10, for a later `second`
#   benches/gpu.sh --list [first|second] the parts with the seconds they should take, added up, and their limits
#   benches/gpu.sh --rehearse            both calls at tiny sizes on a CPU driver; see gpu/rehearse.sh
#
# benches/README.md says how the calls follow each other, what has to be carried and what comes back.
#
# Each part has a limit of its own; a part that fails or hangs is a row of the report, and the next one starts.
# Where no GPU is found, the loader's own words are printed and the script stops within seconds, with exit code 3.
# It can be called again: a part that is done on this card, with this driver and by this program is skipped, another
# one is tried again, and a training run is resumed.
#
# Environment: OUT (default benches/runs/gpu) gets at most eight files, none over 16 MiB; GPU_BUDGET_S seconds for
# everything (default 200 for first, 480 for second); GPU_STATE (default benches/runs/gpu-state) what is kept between two
# calls on one machine, begun from benches/gpu-carry/previous/; PYTHON (default python3); NIN_WGPU the program,
# default that of benches/gpu-carry, else target/release/nin-wgpu. For tests: GPU_FAIL, GPU_HANG and GPU_CUT name
# parts (separated by ;) whose commands fail, hang, or are interrupted once they train, GPU_ADAPTER=any takes a CPU driver for a GPU,
# GPU_SIZES=tiny takes the rehearsal's sizes.
# Exit codes: 0 every part of the call is done or not there; 1 some failed or are left; 2 usage; 3 no GPU.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
# shellcheck source=benches/gpu/lib.sh
source "$here/gpu/lib.sh"

usage() {
  say "$1; usage: benches/gpu.sh first | second | data | --list [first|second] | --rehearse"
  exit 2
}

call='' list=no
case ${1:-} in
  first | second | data)
    [ $# -eq 1 ] || usage "one call at a time"
    call=$1
    ;;
  --list)
    list=yes call=${2:-both}
    [[ $call =~ ^(first|second|both)$ ]] || usage "no call '$call'"
    ;;
  --rehearse) shift && exec "$here/gpu/rehearse.sh" "$@" ;;
  -h | --help) sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" && exit 0 ;;
  *) usage "unknown: '${1:-}'" ;;
esac
case $call in second) budget=${GPU_BUDGET_S:-480} ;; *) budget=${GPU_BUDGET_S:-200} ;; esac
[[ $budget =~ ^[1-9][0-9]*$ ]] || usage "GPU_BUDGET_S is a number of seconds, not '$budget'"

# What is measured, for real and in the rehearsal: the only place where the two differ.
case ${GPU_SIZES:-full} in
  full)
    nin=nin cifar=nin-cifar batch=128 cifar_batch=128 other_batches=(1 32 256)
    steps_train=60 steps_infer=100 roofline_steps=10 tune_s=25 tune_cifar_s=15 kernels_s=60
    kernels=$state/carried/kernels torch_device=cuda torch_steps=6 torch_case_s=1
    fashion=(--model nin --data fashion-mnist)
    paper=(--recipe cifar10-fast)
    check=(check) patience=1
    ;;
  tiny)
    nin=nin-small cifar=nin-cifar batch=4 cifar_batch=2 other_batches=(1)
    steps_train=2 steps_infer=2 roofline_steps=1 tune_s=1 tune_cifar_s=1 kernels_s=100
    kernels=$state/carried/kernels-tiny torch_device=cpu torch_steps=1 torch_case_s=0
    fashion=(--model nin-small --data fashion-mnist --epochs 2 --batch-size 8 --limit-train 320 --limit-test 64 --log-every 1)
    paper=(--recipe cifar10-fast --epochs 1 --warmup-epochs 0.5 --limit-train 8 --limit-test 8 --batch-size 2)
    # A CPU compiles kernels slowly, and is shared with other work.
    check=(check --quick) patience=5
    ;;
  *) usage "GPU_SIZES is full or tiny, not '$GPU_SIZES'" ;;
esac

# --- kinds of parts; the first number is what a part should take, the second its limit

bench() { # NAME SECONDS LIMIT MODEL MODE BATCH PRECISION PAIR MORE...
  local name=$1 seconds=$2 limit=$3 model=$4 mode=$5 size=$6 precision=$7 pair=$8 steps=$steps_train
  shift 8
  if [ "$mode" = infer ]; then steps=$steps_infer; fi
  [[ " $* " == *" --steps "* ]] || set -- --steps "$steps" "$@"
  local more=()
  # A program or card may have no half precision: that is an answer.
  if [ "$precision" = mixed ]; then more=(--optional); fi
  part "$name" "$seconds" "$limit" bench "${more[@]}" --pair "$pair" -- \
    "$program" bench --model "$model" --mode "$mode" --batch-size "$size" --precision "$precision" "$@" --json
}

torch() { # NAME SECONDS LIMIT PAIR ARGUMENTS...
  local name=$1 seconds=$2 limit=$3 pair=$4
  shift 4
  part "$name" "$seconds" "$limit" peer --pair "$pair" -- "$python" "$here/peers/pytorch.py" --device "$torch_device" \
    --steps "$torch_steps" --case-s "$torch_case_s" --budget-s $((limit - 8)) "$@"
}

# One round of an alternation: ours, then PyTorch's, of one model in both modes and all precisions.
round() { # LABEL MODEL BATCH ROUND
  local mode precision
  for mode in train infer; do
    for precision in f32 mixed; do bench "$1 $mode $precision, round $4" 4 25 "$2" "$mode" "$3" "$precision" "$1-$4"; done
  done
  torch "PyTorch $1 eager, round $4" 22 50 "$1-$4" --models "$2" --batch-sizes "$3" --execution eager
}

tune_nin() {
  local precision
  for precision in f32 mixed; do
    part "tune nin $precision" 20 $((tune_s + 15)) text "${optional_mixed[$precision]}" -- \
      "$program" tune --model "$nin" --batch-size "$batch" --precision $precision --budget "$tune_s"
  done
}
declare -A optional_mixed=([f32]=--strict [mixed]=--optional)

by_rules() {
  local precision
  for precision in f32 mixed; do
    bench "nin train $precision, by rules" 6 30 "$nin" train "$batch" $precision "rules" --tune off
  done
}

# Beside the same in the rounds: what drivers' bounds checks on buffers cost.
without_robust_access() {
  local precision
  for precision in f32 mixed; do
    part "nin train $precision, without robust access" 6 30 bench "${optional_mixed[$precision]}" --pair unguarded -- \
      env NIN_WGPU_ROBUST_ACCESS=off "$program" bench --model "$nin" --mode train --batch-size "$batch" \
      --precision $precision --steps "$steps_train" --json
  done
}

kernels_of_the_folder() {
  part "kernels" "$kernels_s" $((kernels_s + 15)) kernels --folder "$kernels" --output "$state/$(kernels_file "$kernels")" -- \
    "$here/gpu/kernels.sh" "$program" "$kernels" "$state/$(kernels_file "$kernels")" "$kernels_s"
}

registers() {
  part "registers" 10 30 registers -- "$state/carried/registers" "$kernels" --isolate
}

self_check() { # SECONDS LIMIT NAME ARGUMENTS...
  local seconds=$1 limit=$2 name=$3
  shift 3
  part "$name" "$seconds" "$limit" text --keep "$name.txt" -- "$program" "$@"
}

first_call() {
  self_check 30 75 "check, quick" check --quick
  by_rules
  tune_nin
  # With the kernels of every layer.
  bench "nin train f32, roofline" 8 30 "$nin" train "$batch" f32 roofline --steps "$roofline_steps" --roofline
  bench "nin train mixed, roofline" 8 30 "$nin" train "$batch" mixed roofline --steps "$roofline_steps" --roofline
  kernels_of_the_folder
  registers
}

second_call() {
  local precision size
  tune_nin
  round nin "$nin" "$batch" 1
  round nin "$nin" "$batch" 2
  training "train nin on fashion-mnist, f32" 100 180 train-f32 "${fashion[@]}"
  for precision in f32 mixed; do
    part "tune nin-cifar $precision" 10 $((tune_cifar_s + 15)) text "${optional_mixed[$precision]}" -- \
      "$program" tune --model "$cifar" --batch-size "$cifar_batch" --precision $precision --budget "$tune_cifar_s"
  done
  round nin-cifar "$cifar" "$cifar_batch" 1
  round nin-cifar "$cifar" "$cifar_batch" 2
  for precision in f32 mixed; do
    bench "nin train $precision, round 3" 4 25 "$nin" train "$batch" $precision nin-3
  done
  torch "PyTorch nin compiled, round 3" 55 110 nin-3 --models "$nin" --modes train --batch-sizes "$batch" \
    --execution compile --layouts nhwc
  torch "PyTorch profile" 12 40 profile --models "$nin" --batch-sizes "$batch" --modes train --execution eager --profile "$state/pytorch-profile.txt"
  training "train nin on fashion-mnist, mixed" 45 120 train-mixed "${fashion[@]}" --precision mixed
  cifar_data 5 60
  training "train nin-cifar on cifar10, mixed" 45 150 train-cifar "${paper[@]}" --precision mixed
  for precision in f32 mixed; do
    bench "nin infer $precision, round 3" 4 25 "$nin" infer "$batch" $precision nin-3
  done
  torch "PyTorch nin compiled for inference, round 3" 40 90 nin-3 --models "$nin" --modes infer --batch-sizes "$batch" \
    --execution compile --layouts nhwc
  # What an earlier call left, and then by falling value.
  by_rules
  without_robust_access
  for precision in f32 mixed; do
    bench "nin train $precision, roofline" 8 30 "$nin" train "$batch" $precision roofline --steps "$roofline_steps" --roofline
  done
  for size in "${other_batches[@]}"; do
    # Tuning would cost more than it tells here.
    for precision in f32 mixed; do
      bench "nin infer $precision, batch $size" 4 25 "$nin" infer "$size" $precision "nin-batches" --tune off
      bench "nin train $precision, batch $size" 4 25 "$nin" train "$size" $precision "nin-batches" --tune off
    done
  done
  torch "PyTorch nin eager, other batches" 45 90 nin-batches --models "$nin" --execution eager --layouts nhwc \
    --batch-sizes "$(IFS=, && echo "${other_batches[*]}")"
  for precision in f32 mixed; do
    bench "nin-cifar train $precision, round 3" 4 25 "$cifar" train "$cifar_batch" $precision nin-cifar-3
  done
  torch "PyTorch nin-cifar compiled, round 3" 50 110 nin-cifar-3 --models "$cifar" --modes train --batch-sizes "$cifar_batch" \
    --execution compile --layouts nhwc
  self_check 30 75 "check, quick" check --quick
  kernels_of_the_folder
  registers
  self_check 60 150 "check, all cases" "${check[@]}"
}

if [ $list = yes ]; then
  list_parts
  exit 0
fi
trap finish EXIT
trap 'stop_running; exit 1' INT TERM
prepare
machine
start_clocks
case $call in
  first) first_call ;;
  second) second_call ;;
  data) cifar_data 5 60 ;;
esac
note_clocks
ending
