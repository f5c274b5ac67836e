#!/usr/bin/env bash
# The whole kit at tiny sizes on this machine's Vulkan device, as it would run on a GPU machine: from packed, carried
# folders, in an empty directory, with an empty environment, from a tree that must not change.
#
#   benches/gpu.sh --rehearse [--keep]
#
# Three machines: the first call on one; on the next one the second call, cut off in the middle of the training recipe; on a
# third one, which goes on from what that brought home, CIFAR-10 arrives in two calls and everything else gets done. Each part
# of `gpu.sh --list` must then have a row that says done; `not there` is taken only from parts that this machine cannot have
# (clocks without nvidia-smi, PyTorch or its compiler, kernels and registers where none were packed), and only with the reason.
# Then gpu/failures.sh plants a failure in each part.
#
# Needs what benches/pack-gpu.sh needs, and a Vulkan device. $NIN_WGPU is the program, default target/release/nin-wgpu;
# $NIN_WGPU_PYTHON the Python, default python3 of /usr/bin. --keep keeps the folder, for a look at it.
# Exit codes: 0 all as it should be; 1 not; 2 usage.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
root=$(dirname "$here")
say() { printf 'rehearsal: %s\n' "$*" >&2; }
keep=no
case ${1:-} in
  '') ;;
  --keep) keep=yes ;;
  *) say "unknown: $1; usage: benches/gpu.sh --rehearse [--keep]" && exit 2 ;;
esac
program=${NIN_WGPU:-${CARGO_TARGET_DIR:-$root/target}/release/nin-wgpu}
[ -x "$program" ] || { say "no program at $program: run 'make build' first" && exit 1; }
program=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")

work=$(mktemp -d)
failures=''
cleanup() {
  if [ -n "$failures" ]; then
    kill "$failures" 2>/dev/null || true
    wait "$failures" 2>/dev/null || true
  fi
  if [ $keep = yes ]; then say "kept: $work" && return; fi
  chmod -R u+w "$work"
  rm -rf "$work"
}
trap cleanup EXIT
fail() {
  say "$1"
  if [ -s "$work/printed" ]; then tail -40 "$work/printed" >&2; fi
  keep=yes
  exit 1
}

python=${NIN_WGPU_PYTHON:-}
if [ -z "$python" ]; then python=$(PATH=/usr/bin:/bin command -v python3) || fail "no python3 in /usr/bin: set NIN_WGPU_PYTHON"; fi

# --- the trees

mkdir "$work/empty" "$work/bin" "$work/cifar"
printf '#!/bin/sh\ntouch %s\nexit 97\n' "$work/cargo-was-called" >"$work/bin/cargo"
cp "$work/bin/cargo" "$work/bin/rustc"
chmod +x "$work/bin/"*
# The driver that the caller has chosen, and nothing else of the environment.
driver=()
for name in VK_DRIVER_FILES VK_ICD_FILENAMES VK_ADD_DRIVER_FILES; do
  if [ -n "${!name:-}" ]; then driver+=("$name=${!name}"); fi
done

"$python" - "$work/cifar" <<'PY'
import random, sys
random.seed(1)
for name in [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]:
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        for image in range(4):
            shade = random.randrange(200)
            file.write(bytes([image % 10]) + bytes(shade + random.randrange(40) for _ in range(3072)))
PY

# tree NAME ARGUMENTS OF PACK-GPU...: a copy of the tree with its carried folder, read-only.
tree() {
  local tree=$work/$1
  shift
  mkdir -p "$tree"
  if git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
    (cd "$root" && git ls-files -co --exclude-standard -z | tar --null --ignore-failed-read -T - -cf - 2>/dev/null) | tar -C "$tree" -xf -
  else
    tar -C "$root" --exclude=./target --exclude='./benches/gpu-carry*' --exclude=./benches/runs -cf - . | tar -C "$tree" -xf -
  fi
  NIN_WGPU=$program "$here/pack-gpu.sh" --tiny --out "$tree/benches/gpu-carry" "$@" >>"$work/printed" 2>&1 || fail "packing failed"
}
# Modes do not stop root: what a tree holds is compared as well.
seal() {
  chmod -R a-w "$work/$1"
  sums_of "$1" >"$work/$1.sums"
}
sums_of() { (cd "$work/$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum && find . | LC_ALL=C sort); }

kit() { # TREE MACHINE CALL VARIABLES...
  local tree=$1 machine=$2 call=$3
  shift 3
  rm -rf "${work:?}/out-$machine"
  (cd "$work/empty" && env -i PATH="$work/bin:/usr/bin:/bin" PYTHON="$python" OUT="$work/out-$machine" GPU_STATE="$work/state-$machine" \
    GPU_ADAPTER=any GPU_SIZES=tiny GPU_BUDGET_S=3600 "${driver[@]}" "$@" "$work/$tree/benches/gpu.sh" "$call") >"$work/printed" 2>&1
}
expect() { # CODE KIT'S ARGUMENTS...
  local wanted=$1 code=0 start=$SECONDS
  shift
  kit "$@" || code=$?
  [ $code -eq "$wanted" ] || fail "'$3' on machine $2 ended with $code instead of $wanted"
  say "$(printf '%4d s  %s on machine %s' $((SECONDS - start)) "$3" "$2")"
}
status_of() { "$python" "$here/gpu/records.py" status "$work/state-$1/results.jsonl"; }
row() { # MACHINE PART: its status and detail
  status_of "$1" | awk -F'\t' -v part="$2" '$2 == part { print $1 ": " $3 }'
}

tree tree-1
seal tree-1
[ -s "$work/tree-1/benches/gpu-carry/nin-wgpu.xz" ] || fail "no program was packed"

"$python" "$here/gpu/test_packing.py" >&2 || fail "packing of CIFAR-10"

# Beside the rest, since most of both is waiting for one core.
PYTHON=$python "$here/gpu/failures.sh" >"$work/failures" 2>&1 &
failures=$!

# --- no GPU: it stops in seconds, with the loader's words

start=$SECONDS
expect 3 tree-1 none first GPU_ADAPTER=gpu VK_DRIVER_FILES="$work/none.json" VK_ICD_FILENAMES="$work/none.json"
[ $((SECONDS - start)) -le 20 ] || fail "without a driver it took $((SECONDS - start)) s to stop"
for words in 'what the Vulkan loader says' none.json; do
  grep -q "$words" "$work/printed" || fail "without a driver the loader's words are not printed: no '$words'"
done
[ -s "$work/out-none/log" ] || fail "without a driver no log comes back"

# --- the first call, and the second one on another machine

expect 0 tree-1 one first
tree tree-2 --previous "$work/out-one"
seal tree-2
recipe="train nin on fashion-mnist, f32"
expect 1 tree-2 two second GPU_CUT="$recipe"
[[ $(row two "$recipe") == left:*saved* ]] || fail "the recipe was not cut off and saved: $(row two "$recipe")"
[[ $(row two "CIFAR-10 unpacked") == left:* ]] || fail "CIFAR-10 was not carried, but: $(row two "CIFAR-10 unpacked")"
grep -q 'done before: tune nin f32' "$work/printed" || fail "the second machine tuned again what the first had brought home"

# --- a third machine: the recipe is resumed, CIFAR-10 comes in two calls

tree tree-3 --previous "$work/out-two"
cp -r "$work/tree-3" "$work/tree-4"
mkdir "$work/tree-3/benches/gpu-carry-cifar-1" "$work/tree-4/benches/gpu-carry-cifar-2"
"$python" "$here/pack_cifar.py" pack "$work/cifar" "$work/pieces" --pieces 2 --block 5 >/dev/null
cp "$work/pieces/cifar-10.1of2.xzs" "$work/tree-3/benches/gpu-carry-cifar-1/"
cp "$work/pieces/cifar-10.2of2.xzs" "$work/tree-4/benches/gpu-carry-cifar-2/"
# What was carried before stays on the machine; the second piece comes alone.
rm -rf "$work/tree-4/benches/gpu-carry"
seal tree-3
seal tree-4
expect 1 tree-3 three data
[[ $(row three "CIFAR-10 unpacked") == "left: 1 of 2 pieces"* ]] || fail "after one piece: $(row three "CIFAR-10 unpacked")"
expect 0 tree-4 three second
[ -d "$work/state-three/carried/lib" ] || fail "carried libraries did not stay on machine three"
grep -q 'train --resume' "$work/state-three/log" || fail "the recipe was begun anew instead of resumed"
for name in data_batch_1.bin data_batch_5.bin test_batch.bin; do
  cmp "$work/cifar/$name" "$work/state-three/data/cifar-10-batches-bin/$name" || fail "$name is not what was packed"
done

# --- every part has its row

cp "$work/out-three/report.md" "$work/report.md"
has_kernels=no has_registers=no
if [ -s "$work/tree-1/benches/gpu-carry/kernels-tiny/kernels.jsonl" ]; then has_kernels=yes; fi
if [ -x "$work/tree-1/benches/gpu-carry/registers" ]; then has_registers=yes; fi
wrong=0 count=0
check_row() { # STATUS PART DETAIL
  count=$((count + 1))
  grep -qF "| $2 | $1 |" "$work/report.md" || { say "the report has no row '$2' that is '$1'" && wrong=1; }
  if [ "$1" = "done" ]; then return; fi
  case $1-$2-$has_kernels-$has_registers in
    "not there-clocks-"* | "not there-PyTorch"* | "not there-kernels-no-"* | "not there-registers-"*"-no") ;;
    # A driver may tell nothing of its kernels.
    "not there-registers-"*) [[ $3 == *"driver tells nothing"* ]] || { say "$2 is '$1': $3" && wrong=1; } ;;
    *) say "$2 is '$1': $3" && wrong=1 ;;
  esac
  if [ -z "$3" ]; then say "$2 is '$1' without a reason" && wrong=1; fi
}
while IFS=$'\t' read -r status name detail; do check_row "$status" "$name" "$detail"; done < <(status_of three)
listed=$(GPU_SIZES=tiny "$here/gpu.sh" --list | sed -n 's/^ *[0-9]* s *[0-9]* s *[0-9]* s  \(.*\)$/\1/p' | sed 's/  (as left.*//' | sort -u | wc -l)
[ "$count" -eq "$listed" ] || fail "$count parts have a row, --list has $listed"
[ $wrong -eq 0 ] || fail "see above"

# --- what came home, and what did not change

for machine in one two three; do
  [ "$(find "$work/out-$machine" -type f | wc -l)" -le 8 ] || fail "machine $machine brought home more than eight files"
  [ -z "$(find "$work/out-$machine" -mindepth 1 \( -type d -o -size +16M -o -regex '.*/[^/]*[^A-Za-z0-9._/-][^/]*' \))" ] ||
    fail "machine $machine brought home what does not fit: $(ls -l "$work/out-$machine")"
done
for name in tree-1 tree-2 tree-3 tree-4; do
  sums_of "$name" | cmp -s - "$work/$name.sums" || fail "$name was changed: $(sums_of "$name" | diff - "$work/$name.sums" | head -5)"
done
[ ! -e "$work/cargo-was-called" ] || fail "cargo or rustc was called"
[ -z "$(find "$work/empty" -mindepth 1)" ] || fail "files were left where it was started: $(ls -A "$work/empty")"
status_of three | grep '^not there' | while IFS=$'\t' read -r status name detail; do say "$name: $status here ($detail)"; done
say "$count parts have their rows, $SECONDS s"
wait $failures || { cat "$work/failures" >&2 && fail "planted failures"; }
cat "$work/failures" >&2
say "all as it should be, $SECONDS s"
