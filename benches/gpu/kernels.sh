#!/usr/bin/env bash
# Measures a folder of kernels, however often one of them takes the process down.
#
#   kernels.sh PROGRAM FOLDER RESULTS.jsonl SECONDS
#
# `bench --kernels` goes on where it was and skips what it died in; this calls it again until it ends by itself, time is
# up, or two calls in a row bring nothing. Exit codes: those of the last call; 2 where there is no such folder.
set -euo pipefail
program=$1 folder=$2 results=$3 seconds=$4
[ -s "$folder/kernels.jsonl" ] || { echo "no kernels were carried: no $folder/kernels.jsonl" >&2 && exit 2; }
# A kernel that was tried or given up counts, and so does finding out that one must be compiled at a time.
known() { if [ -e "$results" ]; then grep -cE '"(verdict|trying|compiling)"' "$results" || true; else echo 0; fi; }
idle=0 code=0
while [ "$SECONDS" -lt "$seconds" ] && [ $idle -lt 2 ]; do
  before=$(known)
  code=0
  "$program" bench --kernels "$folder" --results "$results" --budget-s $((seconds - SECONDS)) || code=$?
  case $code in 0 | 2 | 3 | 8) exit $code ;; esac
  echo "the process ended with $code after $(known) steps" >&2
  if [ "$(known)" -eq "$before" ]; then idle=$((idle + 1)); else idle=0; fi
done
exit $code
