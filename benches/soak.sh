#!/usr/bin/env bash
# Trains nin-small for an hour and says whether the process stays as large as it was.
#
#   benches/soak.sh [SECONDS]
#
# Every 15 seconds a line of $OUT/soak.tsv notes the seconds so far, the process's resident memory in KiB, its threads and
# open files, and from train.log the epochs done, the buffers on the device and the bytes that wgpu has allocated. At the
# end the run is stopped with SIGINT, which must exit with 130. Flat means: after a fifth of the time, to warm up, the means
# of the second and the last quarter of the samples are within 2 % of each other, and no buffer is added.
#
# $OUT (default benches/runs/soak) must be new or empty; $NIN_WGPU is the program, by default target/release/nin-wgpu;
# $DATA the data set, by default the bundled part of Fashion-MNIST.
# Exit codes: 0 flat; 1 not, or the run failed; 2 usage.
set -euo pipefail

root=$(dirname "$(cd "$(dirname "$0")" && pwd)")
seconds=${1:-3600}
out=${OUT:-$root/benches/runs/soak}
program=${NIN_WGPU:-$root/target/release/nin-wgpu}
data=${DATA:-$root/assets/fashion-mnist-mini}
case $seconds in '' | *[!0-9]*) echo "usage: benches/soak.sh [SECONDS]" >&2; exit 2 ;; esac
if [ -e "$out" ] && [ -n "$(ls -A "$out")" ]; then
  echo "$out is not empty: remove it, or set OUT to another folder" >&2
  exit 2
fi
mkdir -p "$out"
table=$out/soak.tsv
log=$out/run/train.log

"$program" -q train --model nin-small --data "$data" --epochs 100000 --out "$out/run" >"$out/stdout" 2>"$out/stderr" &
pid=$!
trap 'kill -KILL "$pid" 2>/dev/null || true' EXIT

# field NAME: a number of the process's status.
field() { sed -n "s/^$1:[[:space:]]*\([0-9]*\).*/\1/p" "/proc/$pid/status"; }
# logged PATTERN: the last number that train.log has there.
logged() { sed -n "s/.*$1.*/\1/p" "$log" 2>/dev/null | tail -1; }

printf 'seconds\trss_kib\tthreads\tfiles\tepochs\tbuffers\tallocated_bytes\n' >"$table"
start=$SECONDS
while [ $((SECONDS - start)) -lt "$seconds" ]; do
  sleep 15
  kill -0 "$pid" 2>/dev/null || break
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' $((SECONDS - start)) "$(field VmRSS)" "$(field Threads)" \
    "$(ls "/proc/$pid/fd" | wc -l)" "$(logged ' epoch \([0-9]*\):')" "$(logged 'memory: \([0-9]*\) buffers')" \
    "$(logged ', \([0-9]*\) bytes allocated')" >>"$table"
done

kill -INT "$pid" 2>/dev/null || true
code=0
wait "$pid" || code=$?
trap - EXIT
if [ "$code" -ne 130 ]; then
  echo "the run ended with exit code $code instead of 130:" >&2
  cat "$out/stderr" >&2
  exit 1
fi

awk -F '\t' '
  NR > 1 && $5 != "" { row[++n] = $2; buffers[n] = $6; epochs = $5; allocated[n] = $7 }
  END {
    first = int(n / 5) + 1
    count = n - first + 1
    if (count < 8) { print "too few samples for a verdict: let it run longer"; exit 1 }
    quarter = int(count / 4)
    for (i = 0; i < quarter; i++) { early += row[first + quarter + i]; late += row[n - i] }
    growth = 100 * (late / early - 1)
    printf "%d samples, %d epochs: resident memory %.1f MiB, then %.1f MiB (%+.2f %%); buffers %d, then %d; wgpu %d bytes, then %d\n",
      n, epochs, early / quarter / 1024, late / quarter / 1024, growth, buffers[first], buffers[n], allocated[first], allocated[n]
    flat = growth < 2 && buffers[n] <= buffers[first] && allocated[n] <= allocated[first] * 1.02
    print flat ? "flat" : "NOT flat"
    exit !flat
  }' "$table"
