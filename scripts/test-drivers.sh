#!/usr/bin/env bash
# Runs the kernels on drivers that this system does not have: on newer Mesas, which scripts/setup-lavapipe.sh unpacks under
# target/, and there on real matrix units without a GPU.
#
#   scripts/test-drivers.sh [--quick]
#
# All shapes of tests/goldens/conv_shapes.txt in whole numbers and in reals, in every direction; gradients of whole networks;
# a mixed training run with the proof before it; `check`; then the whole suite `gpu` as Mesa 25.0 and 26 run it by themselves, and,
# on this system's driver, every design of benches/kernels in emulation. --quick: a part of each of the first, without `check`, in
# about a minute.
# A test fails where the program would not use the driver's own units.
# Exit codes: 0 passed; 1 something failed, or this machine cannot have that driver (said in one line).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

quick=
case "${1:-}" in
  --quick) quick=quick:: ;;
  '') ;;
  *)
    say "unknown argument '$1'; usage: scripts/test-drivers.sh [--quick]"
    exit 1
    ;;
esac

target=${CARGO_TARGET_DIR:-target}
lavapipe=$target/test-tools/lavapipe
scripts/setup-lavapipe.sh "$lavapipe"
if [ -e "$lavapipe.skipped" ]; then
  say "SKIPPED, $(cat "$lavapipe.skipped")"
  exit 1
fi
lavapipe=$(cd "$lavapipe" && pwd)

# cargo starts test programs through this.
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=$lavapipe/run"
# Subgroups of 8: with the 16 that Mesa makes on CPUs with wider registers, its matrices end in a segmentation fault.
export LP_NATIVE_VECTOR_WIDTH=256
export NIN_WGPU_MATRIX_UNITS=small-subgroups

cargo build --release --quiet
NIN_WGPU_TEST_PROGRAM=$("$lavapipe/run" --copy "$target/release/nin-wgpu")
export NIN_WGPU_TEST_PROGRAM

cargo test --release --test gpu -- "matrix_units::$quick" </dev/null
if [ -n "$quick" ]; then
  cargo test --release --test gpu_cli -- the_drivers_matrix_units_learn_alike </dev/null
else
  cargo test --release --test gpu_cli -- the_drivers_matrix_units </dev/null
  unset LP_NATIVE_VECTOR_WIDTH NIN_WGPU_MATRIX_UNITS
  cargo test --release --test gpu </dev/null
  # Debian 13's.
  older=$target/test-tools/lavapipe-25
  scripts/setup-lavapipe.sh "$older" trixie
  if [ -e "$older.skipped" ]; then
    say "SKIPPED, $(cat "$older.skipped")"
    exit 1
  fi
  env "CARGO_TARGET_${host}_RUNNER=$(cd "$older" && pwd)/run" cargo test --release --test gpu </dev/null
  # On this system's own driver: the designs of benches/kernels for matrix units, in ordinary arithmetic.
  env -u "CARGO_TARGET_${host}_RUNNER" cargo test --release --test gpu -- --ignored "kernel folder" </dev/null
fi
