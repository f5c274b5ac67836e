#!/usr/bin/env bash
# Plants a failure in every part of gpu.sh and looks for the rows of all others. A stub answers for the program, for
# PyTorch and for nvidia-smi, so that it takes a minute and no device.
#
#   benches/gpu/failures.sh
#
# Each part fails in some of eight pairs of calls (at 0-3) and hangs, with a child in a session of its own, in others (at
# 4-7); for any two parts there is a pair of calls in which one is planted and the other is not. Exit codes: 0 all as it
# should be; 1 not.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'failures: %s\n' "$*" >&2; }
fail() {
  say "$1"
  exit 1
}
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')

# --- a tree with stubs

tree=$work/tree
mkdir -p "$tree/benches/peers" "$tree/assets" "$work/bin" "$work/cifar"
cp -r "$here/gpu" "$here/gpu.sh" "$here/report.py" "$here/pack_cifar.py" "$tree/benches/"
cat >"$tree/benches/peers/pytorch.py" <<'PY'
print('{"peer": "pytorch-eager", "version": "0", "device": "stub", "model": "nin-small", "mode": "train", "batch_size": 4, "precision": "f32", "images_per_s": 1.0, "ms_per_step": 1.0}')
PY
cat >"$work/bin/nvidia-smi" <<'SH2'
#!/usr/bin/env bash
if [[ $* != *-lms* ]]; then echo 'NVIDIA stub, 1, 1 MiB, 1980 MHz' && exit; fi
while sleep 0.1; do date '+%Y/%m/%d %H:%M:%S.%3N, 1980, 3201, 40, 300.1, 98'; done
SH2
carry=$tree/benches/gpu-carry
mkdir -p "$carry/kernels-tiny" "$tree/benches/gpu-carry-cifar-1"
echo stub >"$carry/commit"
echo '{"kernel": "one"}' >"$carry/kernels-tiny/kernels.jsonl"
cat >"$carry/registers" <<'SH2'
#!/usr/bin/env bash
echo '{"kernel": "one", "entry": "main", "registers": 64, "spilled_bytes": 0, "statistics": {"Register Count": 64}}'
SH2
chmod +x "$work/bin/nvidia-smi" "$carry/registers"
"$python" -c 'import os, sys
for name in ["data_batch_1.bin", "test_batch.bin"]:
    open(f"{sys.argv[1]}/{name}", "wb").write(os.urandom(3073 * 2))' "$work/cifar"
"$python" "$here/pack_cifar.py" pack "$work/cifar" "$tree/benches/gpu-carry-cifar-1" --pieces 2 >/dev/null

kit() { # MACHINE CALL VARIABLES...
  local machine=$1 call=$2
  shift 2
  env -i PATH="$work/bin:/usr/bin:/bin" NIN_WGPU="$tree/benches/gpu/stub" PYTHON="$python" GPU_SIZES=tiny \
    STUB_CALLS="$work/calls-$machine" OUT="$work/out-$machine" GPU_STATE="$work/state-$machine" MARK_OF_FAILURES="$work" "$@" \
    "$tree/benches/gpu.sh" "$call" >>"$work/printed-$machine" 2>&1
}
status_of() { "$python" "$here/gpu/records.py" status "$work/state-$1/results.jsonl"; }
# expect CODE COMMAND...
expect() {
  local wanted=$1 code=0
  shift
  "$@" || code=$?
  [ $code -eq "$wanted" ] || {
    cat "$work"/printed-* >&2
    fail "$* ended with $code instead of $wanted"
  }
}

# --- all is well, then again, then another card

expect 0 kit well first
expect 0 kit well second
if status_of well | grep -v '^done'; then fail "without a planted failure these are not done"; fi
mapfile -t parts < <(status_of well | cut -f2)
[ ${#parts[@]} -gt 40 ] || fail "only ${#parts[@]} parts"
[ "$(find "$work/out-well" -type f | wc -l)" -le 8 ] || fail "more than eight files in OUT"
grep -q '^| one\|^| p | d | 1.50 | 10.00 | 64 | 0 |' "$work/out-well/report.md" || fail "the report lacks the kernel with its registers"
grep -q 'nin-small train, batch 4: pytorch-eager | f32 .* 100.00 |' "$work/out-well/report.md" || fail "the report lacks the ratio to PyTorch"
grep -q '| 1980 (1980) |' "$work/out-well/report.md" || fail "the report lacks clocks"
: >"$work/calls-well"
expect 0 kit well first
if grep -v -e '^--version' -e '^devices' "$work/calls-well"; then fail "done parts were done again"; fi
expect 0 kit well first "STUB_CARD=NVIDIA other"
[ "$(grep -c '^check' "$work/calls-well")" -eq 1 ] || fail "what another card measured was taken for done"
grep -q 'another card or driver: NVIDIA stub' "$work/out-well/report.md" || fail "the report does not name the other card"
say "all is well: ${#parts[@]} parts done, skipped when called again, done again on another card"

# --- no GPU

start=$SECONDS
expect 3 kit none first GPU_FAIL=machine
[ $((SECONDS - start)) -le 15 ] || fail "without a GPU it took $((SECONDS - start)) s to stop"
grep -q 'what the Vulkan loader says' "$work/printed-none" || fail "without a GPU the loader's words are not printed"
expect 3 kit cpu first "STUB_CARD=llvmpipe"
say "without the expected GPU it stops with the loader's words"

# --- planted failures

# Sets of four of the eight pairs of calls, none the first or the last four: 68 parts can be told apart.
sets=()
for ((bits = 0; bits < 256; bits++)); do
  count=0
  for ((pair = 0; pair < 8; pair++)); do count=$((count + ((bits >> pair) & 1))); done
  if [ $count -eq 4 ] && [ $bits -ne 15 ] && [ $bits -ne 240 ]; then sets+=("$bits"); fi
done
[ ${#parts[@]} -le ${#sets[@]} ] || fail "${#parts[@]} parts are more than there are sets"

planted_in() { # PAIR: the parts planted there
  local place
  for place in "${!parts[@]}"; do
    # Without it nothing else can be measured.
    if [ "${parts[$place]}" = machine ]; then continue; fi
    if (((sets[place] >> $1) & 1)); then printf '%s;' "${parts[$place]}"; fi
  done
}

pair_of_calls() { # PAIR
  local names kind=GPU_FAIL
  names=$(planted_in "$1")
  if [ "$1" -ge 4 ]; then kind=GPU_HANG; fi
  kit "$1" first "$kind=$names" || true
  kit "$1" second "$kind=$names" || true
}
for ((pair = 0; pair < 8; pair += 2)); do
  pair_of_calls $pair &
  pair_of_calls $((pair + 1))
  wait $!
done

for ((pair = 0; pair < 8; pair++)); do
  names=";$(planted_in $pair)"
  count=0
  while IFS=$'\t' read -r status name detail; do
    count=$((count + 1))
    wanted="done"
    if [[ $names == *";$name;"* ]]; then
      wanted=failed
      # Clocks are not waited for, and a run that ends on the interrupt without having saved has failed.
      if [ $pair -ge 4 ] && [[ $name != clocks && $name != train* ]]; then wanted="timed out"; fi
      if [ $pair -ge 4 ] && [ "$name" = kernels ]; then wanted=left; fi
    elif [[ $name == "train nin-cifar"* && $names == *";CIFAR-10 unpacked;"* ]]; then
      wanted=left
    fi
    [ "$status" = "$wanted" ] || fail "pair $pair: '$name' is '$status' ($detail) instead of '$wanted'"
  done < <(status_of $pair)
  [ $count -eq ${#parts[@]} ] || fail "pair $pair: $count rows instead of ${#parts[@]}"
  grep -q '^Unmeasured' "$work/out-$pair/report.md" || fail "pair $pair: the report does not name what is unmeasured"
done
remaining=$(grep -lzF "MARK_OF_FAILURES=$work" /proc/[0-9]*/environ 2>/dev/null || true)
[ -z "$remaining" ] || fail "processes are left: $remaining"
say "a failure and a hang planted in each of ${#parts[@]} parts left the others' rows, and no process ($SECONDS s in all)"
