# shellcheck shell=bash
# Sourced by gpu.sh: the machine, the parts, and what is brought home.
# shellcheck disable=SC2154  # root, list, call and budget are gpu.sh's

carry=$here/gpu-carry
out=${OUT:-$here/runs/gpu}
state=${GPU_STATE:-$here/runs/gpu-state}
python=${PYTHON:-python3}
results=$state/results.jsonl log=$state/log
# Seconds for the report and for packing up.
reserve=8
work='' running='' run_folder='' mark='' clocks_mark='' card='' identity='' program='' loader='none'
export PYTHONDONTWRITEBYTECODE=1

say() { printf 'gpu: %s\n' "$*" >&2; }
left() { echo $((budget - SECONDS)); }
records() { "$python" "$here/gpu/records.py" "$@"; }
# in_list NAME LIST: whether a test's list of parts, separated by semicolons, has it.
in_list() { [[ ";$2;" == *";$1;"* ]]; }

# --- the list

declare -A seconds_of=() limit_of=() is_first=()
names=()

# listed NAME SECONDS LIMIT: where parts are listed, not run, notes this one.
listed() {
  [ "$list" != no ] || return 1
  names+=("$1") seconds_of[$1]=$2 limit_of[$1]=$3
}

# Names of all parts without running any.
collect() {
  local mode=$list
  list=collect
  names=()
  "$1"
  list=$mode
}

list_parts() {
  local each name time sum ends
  collect first_call
  for name in "${names[@]}"; do is_first[$name]=yes; done
  for each in first second; do
    if [ "$call" != both ] && [ "$call" != $each ]; then continue; fi
    collect ${each}_call
    names=(machine "${names[@]}" clocks)
    seconds_of[machine]=3 limit_of[machine]=60 seconds_of[clocks]=0 limit_of[clocks]=0
    sum=0 ends=no
    case $each in first) time=${GPU_BUDGET_S:-200} ;; *) time=${GPU_BUDGET_S:-480} ;; esac
    printf '%s, %s s\n should take   in all    limit  part\n' "$each" "$time"
    for name in "${names[@]}"; do
      local takes=${seconds_of[$name]} note=''
      if [ $each = second ] && [ "${is_first[$name]:-no}" = yes ]; then takes=0 note='  (as left by the first call)'; fi
      sum=$((sum + takes))
      if [ $sum -gt $((time - reserve)) ] && [ $ends = no ]; then
        ends=yes
        printf '%s\n' "             ------    what follows is for time that is left over"
      fi
      printf '%10d s %6d s %6d s  %s%s\n' "$takes" $sum "${limit_of[$name]}" "$name" "$note"
    done
  done
}

# --- the machine

unpack_xz() { # FILE.xz FILE
  if command -v xz >/dev/null; then
    xz -dc "$1" >"$2"
  else
    "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$1" "$2"
  fi
}

# What an earlier call on another machine brought home.
restore() {
  local previous=$carry/previous
  if [ -s "$results" ] || [ ! -s "$previous/results.jsonl" ]; then return 0; fi
  say "going on from benches/gpu-carry/previous"
  cp "$previous/results.jsonl" "$results"
  if [ -s "$previous/log" ]; then cp "$previous/log" "$log"; fi
  if [ -s "$previous/kit.tar.gz" ]; then tar -C "$state" -xzf "$previous/kit.tar.gz" || say "kit.tar.gz of the earlier call is damaged"; fi
  if compgen -G "$previous/train-state.tar.gz.*" >/dev/null; then
    cat "$previous"/train-state.tar.gz.* | tar -C "$state" -xzf - || say "the earlier training run could not be unpacked"
  fi
}

# The carried program, or the named one; a copy stays in $state for a later call that carries something else.
find_program() {
  program=${NIN_WGPU:-}
  commit=unknown
  if [ -n "$program" ]; then return 0; fi
  if [ -s "$carry/nin-wgpu.xz" ]; then
    mkdir -p "$state/program"
    if ! cmp -s "$carry/nin-wgpu.xz" "$state/program/nin-wgpu.xz"; then
      unpack_xz "$carry/nin-wgpu.xz" "$state/program/nin-wgpu"
      chmod +x "$state/program/nin-wgpu"
      cp "$carry/commit" "$state/program/commit"
      cp "$carry/nin-wgpu.xz" "$state/program/"
    fi
  fi
  program=$root/target/release/nin-wgpu
  if [ -x "$state/program/nin-wgpu" ]; then
    program=$state/program/nin-wgpu
    commit=$(cat "$state/program/commit")
  fi
}

# What is carried beside the program, kept for a later call that carries something else.
keep_carried() {
  local each
  if [ ! -s "$carry/commit" ]; then return 0; fi
  rm -rf "${state:?}/carried"
  mkdir -p "$state/carried"
  for each in "$carry"/kernels* "$carry/registers" "$carry/lib"; do
    if [ -e "$each" ]; then cp -r "$each" "$state/carried/"; fi
  done
  chmod -R u+w "$state/carried"
}

# older FOUND WANTED: whether a version number is older.
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | sed -n 1p)" = "$1" ]; }

# loads LIBRARY: whether this machine's C library is new enough for it.
loads() {
  local words
  words=$(ldd "$1" 2>&1) || true
  [[ $words != *version*"not found"* ]]
}

carried_loader() { echo "carried, $(cat "$state/carried/lib/loader-version" 2>/dev/null || echo unknown)"; }

# The other Vulkan loader, where there are two: one that cannot be used must not cost the session.
other_loader() {
  if [ -e "$state/lib/libvulkan.so.1" ]; then
    rm "$state/lib/libvulkan.so.1"
    loader="the machine's, for the carried one found nothing"
  elif [ -e "$state/carried/lib/libvulkan.so.1" ] && loads "$state/carried/lib/libvulkan.so.1"; then
    cp "$state/carried/lib/libvulkan.so.1" "$state/lib/"
    loader="$(carried_loader), for the machine's found nothing"
  else
    return 1
  fi
}

# A library of our own in front of the machine's could clash with its driver: only those that it lacks are used,
# and the Vulkan loader where the machine's does not know cooperative matrices yet (1.3.255).
find_libraries() {
  local library name known path version folders=("$state/lib")
  rm -rf "${state:?}/lib"
  mkdir -p "$state/lib"
  known=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null || true)
  for library in "$state"/carried/lib/*.so*; do
    if [ ! -e "$library" ]; then continue; fi
    name=$(basename "$library")
    path=$(awk -v name="$name" '$1 == name { print $NF; exit }' <<<"$known")
    if [ -n "$path" ] && [ "$name" = libvulkan.so.1 ]; then
      version=$(basename "$(readlink -f "$path")")
      version=${version#libvulkan.so.}
      loader="the machine's $version"
      if [[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] && older "$version" 1.3.255; then path=''; fi
    fi
    if [ -z "$path" ]; then
      if ! loads "$library"; then
        say "the carried $name needs a newer C library than this machine has"
        continue
      fi
      cp "$library" "$state/lib/"
      if [ "$name" = libvulkan.so.1 ]; then loader=$(carried_loader); fi
    fi
  done
  if [ "$loader" = none ]; then
    path=$(awk '$1 == "libvulkan.so.1" { print $NF; exit }' <<<"$known")
    if [ -n "$path" ]; then loader="the machine's $(basename "$(readlink -f "$path")")"; fi
  fi
  local folder
  for folder in /usr/local/*/share/vulkan/icd.d; do
    # The driver's libraries lie beside its manifest and may be unknown to ldconfig.
    for path in "${folder%/share/vulkan/icd.d}"/lib64 "${folder%/share/vulkan/icd.d}"/lib; do
      if [ -d "$path" ]; then folders+=("$path"); fi
    done
  done
  LD_LIBRARY_PATH=$(IFS=: && echo "${folders[*]}")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
}

manifests() {
  local folder
  for folder in /etc /usr/share /usr/local/share /usr/local/*/share; do compgen -G "$folder/vulkan/icd.d/*.json" || true; done | sort -u
}

find_driver() {
  local elsewhere vendor
  elsewhere=$(manifests | grep '^/usr/local/[^/]*/share/' | grep -v '^/usr/local/share/' | paste -sd: - || true)
  if [ -n "$elsewhere" ] && [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}${VK_ADD_DRIVER_FILES:-}" ]; then
    if compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null || compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null; then
      export VK_ADD_DRIVER_FILES=$elsewhere
    else
      export VK_DRIVER_FILES=$elsewhere
    fi
    say "Vulkan driver: $elsewhere"
  fi
  for vendor in /usr/local/*/share/glvnd/egl_vendor.d/*.json; do
    if [ -e "$vendor" ] && [ -z "${__EGL_VENDOR_LIBRARY_FILENAMES:-}" ]; then export __EGL_VENDOR_LIBRARY_FILENAMES=$vendor; fi
  done
  export WGPU_BACKEND=vulkan
}

prepare() {
  # The program itself: a shim in front of it costs time in every part.
  python=$("$python" -c 'import sys; print(sys.executable)') || { say "no $python here: set PYTHON" && exit 1; }
  mkdir -p "$out" "$state/cache" "$state/data" || { say "cannot write to $out and $state: set OUT and GPU_STATE" && exit 1; }
  work=$(mktemp -d)
  restore
  find_program
  [ -x "$program" ] || { say "no program at $program: carry one (benches/pack-gpu.sh), or set NIN_WGPU" && exit 1; }
  keep_carried
  find_libraries
  find_driver
  # Drivers keep compiled kernels, too.
  export NIN_WGPU_CACHE_DIR=$state/cache XDG_CACHE_HOME=${XDG_CACHE_HOME:-$state/cache} HOME=${HOME:-$state}
  # Of all sets, wherever they came from: a run that is resumed elsewhere finds them by their names.
  if [ -d "$carry/data" ]; then cp -rn "$carry/data/." "$state/data/"; fi
  chmod -R u+w "$state/data"
  export NIN_WGPU_DATA=$state/data
}

# What the loader and the linker say where no GPU was found.
diagnose() {
  local manifest library path
  say "no GPU; what the Vulkan loader says:"
  timeout 10 env VK_LOADER_DEBUG=all "$program" devices 2>&1 | tail -60 || true
  say "loader: $loader; manifests:"
  manifests
  while read -r manifest; do
    library=$(sed -n 's/.*"library_path" *: *"\([^"]*\)".*/\1/p' "$manifest" | sed -n 1p)
    path=$library
    if [[ $library != */* ]]; then
      path=$(for path in ${LD_LIBRARY_PATH//:/ }; do compgen -G "$path/$library" || true; done | sed -n 1p)
      if [ -z "$path" ]; then path=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p | awk -v name="$library" '$1 == name { print $NF; exit }'); fi
    elif [[ $library != /* ]]; then
      path=$(dirname "$manifest")/$library
    fi
    printf '%s: %s is %s\n' "$manifest" "$library" "${path:-nowhere}"
    if [ -n "$path" ]; then timeout 10 ldd "$path" 2>&1 | grep -v ' => /' || true; fi
  done < <(manifests)
  printf 'devices: %s\n' "$(compgen -G '/dev/nvidia*' | paste -sd' ' - || true) $(compgen -G '/dev/dri/*' | paste -sd' ' - || true)"
}

# planted NAME: whether a test wants this part to fail.
planted() { in_list "$1" "${GPU_FAIL:-}" || in_list "$1" "${GPU_HANG:-}"; }

# Names the card and the program, or stops with the loader's words.
machine() {
  local gpu='' start=$SECONDS want=gpu named='' version hash code=0
  if [ "${GPU_ADAPTER:-gpu}" = any ]; then want=any; fi
  if command -v nvidia-smi >/dev/null; then
    gpu=$(timeout 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>>"$log" | sed -n 1p) || gpu='nvidia-smi failed'
    if [[ $gpu == NVIDIA* ]] && [ $want = gpu ]; then named=nvidia; fi
  fi
  version=$("$program" --version 2>>"$log" | cut -d' ' -f2-) || version=''
  hash=$(sha256sum "$program" | cut -c1-8)
  identity="$version $commit $hash"
  find_adapter() {
    code=0
    if planted machine; then return 1; fi
    timeout 30 "$program" devices --json >"$work/devices" 2>"$work/messages" || code=$?
    cat "$work/devices" "$work/messages" >>"$log"
    [ $code -eq 0 ] && card=$(records adapter "$work/devices" --want $want --named "$named" 2>>"$work/messages")
  }
  if ! find_adapter && { ! other_loader || ! find_adapter; }; then
    cat "$work/messages" >&2 2>/dev/null || true
    diagnose 2>&1 | tee -a "$log" >&2
    card="no GPU"
    note machine failed "$start" "no GPU was found: see the log"
    exit 3
  fi
  collect first_call
  printf '%s\n' machine clocks "${names[@]}" >"$work/plan"
  collect second_call
  printf '%s\n' "${names[@]}" >>"$work/plan"
  awk '!seen[$0]++' "$work/plan" >"$work/plan.once"
  records machine "$results" --card "$card" --program "$identity" --plan "$work/plan.once" --facts "date=$(date +%F)" \
    "program=$identity" "GPU=${gpu:-no nvidia-smi}" "adapter=$card" "Vulkan loader=$loader" "system=$(uname -srm), $(nproc) cores" \
    "sizes=${GPU_SIZES:-full}"
  local name
  while read -r name; do is_done[$name]=yes; done < <(records "done" "$results" --card "$card" --program "$identity")
  # What a tuner's part measured lies in the cache folder; where that did not come along, the part is to be done again.
  if [ -z "$(find "$state/cache" -type f -print -quit)" ]; then
    for name in "${!is_done[@]}"; do if [[ $name == tune* ]]; then unset "is_done[$name]"; fi; done
  fi
  note machine "done" "$start" "$card"
}
declare -A is_done=()

# --- clocks

start_clocks() {
  clocks_start=$SECONDS
  if planted clocks || ! command -v nvidia-smi >/dev/null; then return 0; fi
  clocks_mark=clocks.$$.$RANDOM
  # Lines at once, though it is no terminal that they go to.
  GPU_KIT_PART=$clocks_mark stdbuf -oL nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,temperature.gpu,power.draw,utilization.gpu \
    --format=csv,noheader,nounits -lms 500 >>"$state/clocks.csv" 2>>"$log" &
  disown
}

stop_clocks() {
  if [ -n "$clocks_mark" ]; then sweep "$clocks_mark" TERM; fi
  clocks_mark=''
}

note_clocks() {
  stop_clocks
  if planted clocks; then
    note clocks failed "$clocks_start" "planted"
  elif ! command -v nvidia-smi >/dev/null; then
    note clocks "not there" "$clocks_start" "no nvidia-smi on this machine"
  elif [ ! -s "$state/clocks.csv" ]; then
    note clocks failed "$clocks_start" "nvidia-smi told nothing"
  else
    records clocks "$results" "$state/clocks.csv"
    note clocks "done" "$clocks_start" "$(wc -l <"$state/clocks.csv") samples"
  fi
}

# --- parts

missed=()

# ended NAME STATUS: one line for whoever watches, and the results so far where they outlive this process.
ended() {
  say "$(printf '%4d s left  %-10s %s' "$(left)" "$2" "$1")"
  case $2 in done | "not there") ;; *) missed+=("$1") ;; esac
  cp "$results" "$log" "$out/" 2>/dev/null || true
}

# note NAME STATUS START [DETAIL]: how a part without a command ended.
note() {
  records note "$results" --name "$1" --status "$2" --seconds $((SECONDS - $3)) --detail "${4:-}" --card "$card" --program "$identity"
  ended "$1" "$2"
}

# Ends every process that a part's command left, also those in groups and sessions of their own: all carry the mark.
sweep() { # MARK [SIGNAL]
  local file
  while read -r file; do
    file=${file#/proc/}
    kill -"${2:-KILL}" "${file%%/*}" 2>/dev/null || true
  done < <(grep -lzxF "GPU_KIT_PART=$1" /proc/[0-9]*/environ 2>/dev/null || true)
}

stop_running() {
  if [ -n "$running" ]; then
    kill -TERM "$running" 2>/dev/null || true
    sleep 1
    sweep "$mark"
  fi
  stop_clocks
}

# limited NAME LIMIT SIGNAL COMMAND...: runs it with a limit; its output and messages are in $work. Sets `code` and `took`.
limited() {
  local name=$1 limit=$2 signal=$3
  shift 3
  code=0
  if in_list "$name" "${GPU_FAIL:-}"; then set -- bash -c 'echo planted >&2; exit 1'; fi
  if in_list "$name" "${GPU_HANG:-}"; then
    limit=0.2
    set -- bash -c 'setsid sleep 600 & sleep 600'
  fi
  printf '\n== %s\n$ %s\n' "$name" "$*" >>"$log"
  mark=$$.$SECONDS.$RANDOM
  GPU_KIT_PART=$mark timeout --preserve-status -s "$signal" -k 12 "$limit" "$@" >"$work/output" 2>"$work/messages" </dev/null &
  running=$!
  local started=${EPOCHREALTIME//[.,]/}
  if in_list "$name" "${GPU_CUT:-}"; then
    while kill -0 "$running" 2>/dev/null && [ ! -s "$run_folder/metrics.jsonl" ]; do sleep 0.05; done
    kill -s "$signal" "$running" 2>/dev/null || true
  fi
  wait "$running" || code=$?
  running=''
  sweep "$mark"
  local tenths=$(((${EPOCHREALTIME//[.,]/} - started) / 100000))
  took=$((tenths / 10)).$((tenths % 10))
  # 130 is the answer of a program that has saved; others may end in any way where their time is up.
  if [ $code -ne 0 ] && [ $code -ne 130 ] && [ "$tenths" -ge "$((${limit%.*} * 10))" ]; then code=124; fi
  cat "$work/messages" >>"$log"
}

# part NAME SECONDS LIMIT KIND [--optional] [--pair P] [--folder DIR] [--output FILE] [--keep NAME] -- COMMAND...
part() {
  local name=$1 seconds=$2 limit=$3 kind=$4 output='' keep='' more=() status
  shift 4
  if listed "$name" "$seconds" "$limit"; then return; fi
  limit=$((limit * patience))
  while [ "$1" != -- ]; do
    case $1 in
      --optional) more+=("$1") ;;
      --strict) ;;
      --pair | --folder) more+=("$1" "$2") && shift ;;
      --output) output=$2 && shift ;;
      --keep) keep=$state/${2//[ ,]/-} && shift ;;
    esac
    shift
  done
  shift
  if [ "${is_done[$name]:-no}" = yes ]; then
    say "done before: $name"
    return
  fi
  if ! has_time "$name" "$seconds"; then return; fi
  if [ ! -e "$1" ] && ! command -v "$1" >/dev/null && ! planted "$name"; then
    note "$name" "not there" $SECONDS "$(basename "$1") was not carried"
    return
  fi
  limited "$name" "$limit" TERM "$@"
  if [ "$kind" = text ]; then cat "$work/output" >>"$log"; fi
  if [ -n "$keep" ]; then cp "$work/output" "$keep"; fi
  if [ "$kind" = registers ]; then cp "$work/output" "$state/registers.jsonl"; fi
  finish_part "$name" "$kind" "$limit" --output "${output:-$work/output}" "${more[@]}"
}

# has_time NAME SECONDS: notes the part as left where less than half of what it should take is left; cuts `limit`.
has_time() {
  local available=$(($(left) - reserve))
  if [ "$available" -lt 3 ] || [ $((available * 2)) -lt "$2" ]; then
    note "$1" left $SECONDS "no time left: it should take $2 s"
    return 1
  fi
  if [ "$available" -lt "$limit" ]; then limit=$available; fi
}

finish_part() { # NAME KIND LIMIT MORE...
  local name=$1 kind=$2 limit=$3 status detail
  shift 3
  IFS=$'\t' read -r status detail < <(records part "$results" --name "$name" --kind "$kind" --code "$code" --seconds "$took" \
    --limit "$limit" --messages "$work/messages" --card "$card" --program "$identity" "$@") || status=failed
  if [ -n "$detail" ]; then printf '%s: %s\n' "$status" "$detail" >>"$log"; fi
  if [ "$status" = "done" ]; then is_done[$name]=yes; fi
  ended "$name" "$status"
}

# Results of kernels belong to a card, a driver and a folder.
kernels_file() { printf 'kernels-%s.jsonl' "$( (printf '%s\n' "$card" && cat "$1/kernels.jsonl" 2>/dev/null) | cksum | cut -d' ' -f1)"; }

# training NAME SECONDS LIMIT FOLDER ARGUMENTS OF TRAIN...: resumed where a run was begun on this card.
training() {
  local name=$1 seconds=$2 limit=$3 folder=$state/$4 command
  run_folder=$folder
  shift 4
  if listed "$name" "$seconds" "$limit"; then return; fi
  limit=$((limit * patience))
  if [ "${is_done[$name]:-no}" = yes ]; then
    say "done before: $name"
    return
  fi
  if [[ $name == *cifar10* ]] && [ ! -s "$state/data/cifar-10-batches-bin/test_batch.bin" ] && ! planted "$name"; then
    note "$name" left $SECONDS "CIFAR-10 is not here yet"
    return
  fi
  if ! has_time "$name" 30; then return; fi
  if [ -d "$folder/state" ] && [ ! -e "$folder/finished" ] && [ "$(cat "$folder.card" 2>/dev/null)" = "$card" ]; then
    command=(train --resume "$folder")
  else
    rm -rf "$folder"
    printf '%s\n' "$card" >"$folder.card"
    command=(train "$@" --out "$folder")
  fi
  # The program saves on an interrupt and ends with 130.
  limited "$name" "$limit" INT "$program" "${command[@]}"
  cat "$work/output" >>"$log"
  finish_part "$name" train "$limit" --folder "$folder"
  if [ "${is_done[$name]:-no}" = yes ]; then touch "$folder/finished"; fi
}

# cifar_data SECONDS LIMIT: the pieces in benches/gpu-carry-cifar-*/ become files in $state/data.
cifar_data() {
  local name="CIFAR-10 unpacked" seconds=$1 limit=$2 pieces=() start=$SECONDS
  if listed "$name" "$seconds" "$limit"; then return; fi
  limit=$((limit * patience))
  if [ -s "$state/data/cifar-10-batches-bin/test_batch.bin" ] && [ "${is_done[$name]:-no}" = yes ]; then
    say "done before: $name"
    return
  fi
  # A later call may find only its own pieces in the tree.
  mkdir -p "$state/pieces"
  mapfile -t pieces < <(compgen -G "$here/gpu-carry-cifar-*/*.xzs" || true)
  if [ ${#pieces[@]} -gt 0 ]; then cp "${pieces[@]}" "$state/pieces/"; fi
  mapfile -t pieces < <(compgen -G "$state/pieces/*.xzs" || true)
  local of=${pieces[0]:-}
  of=${of##*of} of=${of%.xzs}
  if ! planted "$name" && { [ ${#pieces[@]} -eq 0 ] || [ ${#pieces[@]} -lt "$of" ]; }; then
    note "$name" left "$start" "${#pieces[@]} of ${of:-2} pieces are here"
    return
  fi
  if ! has_time "$name" "$seconds"; then return; fi
  limited "$name" "$limit" TERM "$python" "$here/pack_cifar.py" unpack "$state/data/cifar-10-batches-bin" "${pieces[@]}"
  finish_part "$name" text "$limit" --output "$work/output"
}

# --- home

count_of() { { compgen -G "$out/$1.tar.gz.*" || true; } | wc -l; }

# pack_split NAME PARTS FILE...: files of $state as at most so many files of 15 MiB; all or nothing, since a part of an
# archive is worth nothing.
pack_split() {
  local name=$1 parts=$2
  shift 2
  tar -C "$state" -czf - "$@" | split -b 15M -d - "$out/$name.tar.gz."
  if [ "$(count_of "$name")" -gt "$parts" ]; then
    say "$name needs more than $parts files, and is left here: $state"
    rm -f "$out/$name".tar.gz.*
  fi
}

# Paths in $state that match, relative to it.
inside() { (cd "$state" && for pattern in "$@"; do if [ -n "$pattern" ]; then compgen -G "$pattern" || true; fi; done); }

# At most eight files of at most 16 MiB: results, report, log, the kit's small files, the state of one run, weights.
bring_home() {
  local run small files states caches
  rm -f "$out"/train-state.tar.gz.* "$out"/train-weights.tar.gz.* "$out/kit.tar.gz"
  tail -c 15000000 "$log" >"$out/log"
  cp "$results" "$out/results.jsonl"
  mapfile -t small < <(inside '*.jsonl' '*.csv' '*.txt' '*.card' 'train-*/metrics.jsonl' 'train-*/config.toml' 'train-*/finished' | grep -vx results.jsonl)
  # All caches, or without those of drivers, or what tuning found alone.
  for caches in 'cache' 'cache/*.*' 'cache/*.json' ''; do
    mapfile -t files < <(inside "$caches")
    tar -C "$state" -czf "$out/kit.tar.gz" "${small[@]}" "${files[@]}" || say "the kit's files could not be packed"
    if [ "$(stat -c %s "$out/kit.tar.gz")" -le 16000000 ]; then break; fi
    say "the kit's files and $caches are too large to come along"
  done
  # An unfinished run can go on elsewhere; the first one that is unfinished is worth the most.
  for run in train-f32 train-mixed train-cifar; do
    if [ -d "$state/$run/state" ] && [ ! -e "$state/$run/finished" ]; then
      mapfile -t files < <(inside "$run/*.toml" "$run/*.jsonl" "$run/*.safetensors" "$run/train.log*" "$run/state/*" "$run.card")
      pack_split train-state 2 "${files[@]}"
      break
    fi
  done
  states=$(count_of train-state)
  mapfile -t files < <(inside 'train-*/best.safetensors')
  if [ ${#files[@]} -gt 0 ]; then pack_split train-weights $((4 - states)) "${files[@]}"; fi
}

ending() {
  if [ ${#missed[@]} -gt 0 ]; then
    say "not done: $(IFS=';' && echo "${missed[*]}")"
    exit 1
  fi
}

finish() {
  local code=$?
  trap - EXIT
  stop_clocks
  if [ -s "$results" ]; then
    bring_home
    "$python" "$here/report.py" gpu "$results" | tee "$out/report.md"
  fi
  if [ -n "$work" ]; then rm -rf "$work"; fi
  exit $code
}
