#!/usr/bin/env bash
# Runs all tests, as `make test` and .ci/run do, and ends with one line for each part.
#
#   scripts/run-tests.sh
#
#   1. `cargo test --release` on the adapter the program chooses by itself (llvmpipe without a GPU);
#   2. the programs in examples/;
#   3. the suites that use a device once more on SwiftShader, a driver with other limits;
#   4. a part of the suite for matrix units on real ones, those of a newer Mesa (all: make test-drivers);
#   5. every expanded shader through Tint;
#   6. a part of the suites with Vulkan's validation layer;
#   7. a rehearsal of benches/gpu.sh, the measurements on a GPU machine, at tiny sizes.
# A part whose tools this machine cannot have is reported as skipped, never as passed.
# DEVICE_SUITES (environment) names the test targets of part 3; default: every target whose name
# begins with `gpu`, and where there is none, all of them.
# Exit codes: 0 nothing failed; 1 a part failed (the later ones still ran).
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
tools=$target/test-tools
shaders=$target/shaders-expanded
scripts/setup-tests.sh "$tools"
tools=$(cd "$tools" && pwd)

summary=()
failed=0

# part NAME COMMAND...: runs one part and notes how it went.
part() {
  local name=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@" </dev/null; then
    summary+=("$name: passed in $((SECONDS - start)) s")
  else
    summary+=("$name: FAILED after $((SECONDS - start)) s")
    failed=1
  fi
}

# skipped NAME TOOL: notes why a part could not run.
skipped() { summary+=("$1: SKIPPED, $(cat "$tools/$2.skipped")"); }

on_swiftshader() {
  local driver="$tools/swiftshader/vk_swiftshader_icd.json"
  # Older loaders (Ubuntu 22.04) know only the second name.
  env -u NIN_WGPU_DEVICE -u WGPU_ADAPTER_NAME WGPU_BACKEND=vulkan \
    VK_DRIVER_FILES="$driver" VK_ICD_FILENAMES="$driver" "$@"
}

# `--test NAME` for each suite that uses a device.
device_suites() {
  local name
  for name in ${DEVICE_SUITES:-$(sed -n 's/^name *= *"\(gpu[^"]*\)".*/\1/p' Cargo.toml)}; do
    printf -- '--test\n%s\n' "$name"
  done
}

if [ -s "$tools/python" ]; then
  NIN_WGPU_PYTHON=$(cat "$tools/python")
  export NIN_WGPU_PYTHON
fi

if [ -e "$tools/khronos.skipped" ]; then
  skipped "kernels through spirv-val" khronos
else
  export NIN_WGPU_SPIRV_VAL="$tools/khronos/spirv-val"
fi

part "tests" cargo test --release --no-fail-fast

examples() {
  local run
  run=$(mktemp -d)
  cargo run --release --quiet --example train -- "$run/shapes" &&
    cargo run --release --quiet --example infer -- assets/samples/*.png &&
    cargo run --release --quiet --example infer -- --weights "$run/shapes/best.safetensors" assets/samples/drawing-t-shirt.png
  local status=$?
  rm -rf "$run"
  return "$status"
}
part "examples" examples

if [ -e "$tools/swiftshader.skipped" ]; then
  skipped "tests on SwiftShader" swiftshader
else
  mapfile -t suites < <(device_suites)
  # What these look at is the program around the kernels, and the same on every driver.
  skips=(--skip bench:: --skip documents:: --skip lasting:: --skip nin_trains_at_batch_128 --skip recipes:: --skip report:: --skip tune::)
  part "tests on SwiftShader" on_swiftshader cargo test --release "${suites[@]}" -- "${skips[@]}"
fi

if [ -e "$tools/lavapipe.skipped" ]; then
  skipped "real matrix units" lavapipe
else
  part "real matrix units" scripts/test-drivers.sh --quick
fi

if [ -e "$tools/tint.skipped" ]; then
  skipped "shaders through Tint" tint
else
  rm -rf "$shaders"
  part "shaders through Tint" bash -c \
    "cargo run --release --quiet -- dump shaders --out '$shaders' && node scripts/tint.mjs '$shaders' '$tools'"
fi

for tool in khronos lavapipe; do
  if [ ! -e "$tools/$tool.skipped" ]; then continue; fi
  skipped "Vulkan's validation layer" "$tool"
  break
done
if [ ! -e "$tools/khronos.skipped" ] && [ ! -e "$tools/lavapipe.skipped" ]; then
  part "Vulkan's validation layer" scripts/validate-vulkan.sh quick
fi

if [ -n "${NIN_WGPU_PYTHON:-}" ] || PATH=/usr/bin:/bin command -v python3 >/dev/null; then
  part "rehearsal of the GPU kit" env NIN_WGPU="$target/release/nin-wgpu" benches/gpu.sh --rehearse
else
  summary+=("rehearsal of the GPU kit: SKIPPED, no Python 3 here")
fi

[ -e "$tools/torch.skipped" ] && skipped "weights in PyTorch" torch

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
if [ "$failed" -ne 0 ]; then
  echo "make test: FAILED"
  exit 1
fi
echo "make test: all parts that could run here passed"
