#!/usr/bin/env bash
# Runs the suites with Khronos' validation layer, which reads every call to Vulkan and every shader, and looks for missing
# synchronisation. Fails on any message that tests/listed-messages.tsv does not name, and on any that it names without need.
#
#   scripts/validate-vulkan.sh [quick|full]
#
# The layer needs a newer C library than Debian 12's, so this runs on the Mesa of scripts/setup-lavapipe.sh, with the layer of
# scripts/setup-khronos.sh; both go to target/test-tools.
#   quick   every operation of the registry, and the program checking kernels on real matrix units, training and classifying:
#           about a minute on two cores
#   full    the whole suite `gpu` instead of the registry: about a quarter of an hour
# Whether results are right is for other tests to say: a suite has to come to its end here. That the layer is at work is
# shown by what it says when it starts, and by a planted error that it has to find.
# Exit codes: 0 no message that is not listed; 1 there are some, or something did not run; 2 usage; 3 this machine cannot have
# the tools (with the reason).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

extent=${1:-quick}
case "$extent" in
  quick | full) ;;
  *)
    say "usage: scripts/validate-vulkan.sh [quick|full]"
    exit 2
    ;;
esac

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/test-tools"
tools=$(cd "$target/test-tools" && pwd)
for tool in khronos lavapipe; do
  "scripts/setup-$tool.sh" "$tools/$tool"
  if [ -e "$tools/$tool.skipped" ]; then
    say "skipped: $(cat "$tools/$tool.skipped")"
    exit 3
  fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Into one stream: each instance of Vulkan would begin a file anew.
cat >"$work/vk_layer_settings.txt" <<SETTINGS
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.log_filename = stdout
khronos_validation.report_flags = error,warn,perf,info
khronos_validation.enable_message_limit = false
khronos_validation.check_shaders_caching = false
khronos_validation.validate_sync = true
khronos_validation.syncval_shader_accesses_heuristic = true
SETTINGS

# with_layer PROGRAM [ARGUMENTS]: runs it with the layer.
with_layer() {
  env VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_PATH="$tools/khronos/layers" \
    VK_LAYER_SETTINGS_PATH="$work" "$tools/lavapipe/run" "$@" </dev/null
}

# messages LOG: the kinds of errors and warnings in it, each once.
messages() { grep -oE 'Validation (Error|Warning|Performance Warning): \[ [^]]* \]' "$1" | sort | uniq -c || true; }

# is_watched LOG: whether the layer said at its start that it looks for missing synchronisation.
is_watched() { [ "$(grep -A 3 'CURRENT-VALIDATION-ENABLED' "$1" | grep -c 'Synchronization')" -gt 0 ]; }

failed=0
complain() {
  say "$*"
  failed=1
}

# judged NAME ENDING PROGRAM [ARGUMENTS]: runs a program to the line ENDING and judges what the layer said.
judged() {
  local name=$1 ending=$2 log=$work/$1.log start=$SECONDS said listed
  shift 2
  with_layer "$@" >"$log" 2>&1 || true
  if ! grep -qE "$ending" "$log"; then
    tail -n 5 "$log" >&2
    complain "$name did not come to its end"
  fi
  if ! is_watched "$log"; then
    complain "$name: the layer was not at work"
  fi
  said=$(messages "$log")
  while IFS= read -r listed; do
    [ -n "$listed" ] && said=$(grep -vF -- "$listed" <<<"$said" || true)
  done < <(awk -F '\t' -v run="$extent" '$1 == "layer" && ($3 == run || $3 == "any") { print $2 }' tests/listed-messages.tsv)
  if [ -n "$said" ]; then
    printf '%s\n' "$said" >&2
    grep -m 3 -A 6 -E 'Validation (Error|Warning|Performance Warning): ' "$log" >&2
    complain "$name: messages that are not listed"
  fi
  say "$name: $(grep -cE 'CURRENT-VALIDATION-ENABLED' "$log") instances watched in $((SECONDS - start)) s"
}

cargo build --release --quiet
suite=$(cargo test --release --test gpu --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"name":"gpu".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$suite" ] || {
  say "the suite gpu was not built"
  exit 1
}
program=$target/release/nin-wgpu

# The planted error: modules as wgpu makes them have layouts where none may be.
NIN_WGPU_SPIRV=wgpu with_layer "$suite" --exact registry::conv2d::integrated >"$work/planted.log" 2>&1 || true
grep -q 'VUID-StandaloneSpirv-None-10684' "$work/planted.log" ||
  complain "the layer did not find the planted error: it is not at work"

if [ "$extent" = quick ]; then
  judged registry '^test result: ' "$suite" registry::
else
  judged gpu '^test result: ' "$suite"
fi
# Subgroups of 8: with the 16 that Mesa makes on CPUs with wider registers, its matrices end in a segmentation fault.
LP_NATIVE_VECTOR_WIDTH=256 NIN_WGPU_MATRIX_UNITS=small-subgroups judged check '^(pass|FAIL): ' "$program" check --quick
grep -q 'with matrix units for 8 x 8' "$work/check.log" || complain "check did not use the driver's matrix units"
judged training 'accuracy' "$program" train --model nin-small --data assets/fashion-mnist-mini --epochs 1 --limit-train 600 --limit-test 200 --out "$work/run"
judged classifying 'label|%' "$program" infer assets/samples/drawing-t-shirt.png

while IFS= read -r listed; do
  grep -qF -- "$listed" "$work"/*.log || complain "listed without need: $listed"
done < <(awk -F '\t' -v run="$extent" '$1 == "layer" && ($3 == run || $3 == "any") { print $2 }' tests/listed-messages.tsv)

[ "$failed" -eq 0 ] && say "no message that is not listed"
exit "$failed"
