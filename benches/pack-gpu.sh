#!/usr/bin/env bash
# Builds the folders that benches/gpu.sh needs on a GPU machine without network and cargo; git ignores them.
#
#   benches/pack-gpu.sh [--previous DIR] [--cifar DIR] [--out DIR] [--tiny]
#
# benches/gpu-carry/ (--out names another place) gets
#   nin-wgpu.xz    $NIN_WGPU, default target/release/nin-wgpu, without symbols
#   commit         what it was built from
#   registers      the program of benches/registers/, which tells what the driver made of a kernel
#   kernels/       the folder of kernels of `cargo run --example kernel_matrix` ($KERNEL_MATRIX names another program)
#   lib/           the newest Vulkan loader of a Debian from 13 on (older ones do not know cooperative matrices), the GLVND
#                  libraries and those of X11 that they and NVIDIA's driver link to: of each only what the machine
#                  lacks is used there. Taken from this system, else unpacked from its packages, nothing is installed
#   data/          Fashion-MNIST from $NIN_WGPU_DATA/fashion-mnist, /usr/share/datasets or Debian's package
#   previous/      what an earlier call brought home in its $OUT, to go on with (--previous DIR)
# and with --cifar DIR, the folder with data_batch_1.bin, benches/gpu-carry-cifar-1/ and -2/ get CIFAR-10 in two pieces
# (minutes: every core compresses).
# Each of these folders is carried beside the tree in a call of its own: the tree and the folder together are counted,
# and more than 64 MiB ($CARRY_MIB) is refused. --tiny is for the rehearsal: a small
# part of Fashion-MNIST, and kernels-tiny/, some kernels for tiny shapes.
# Nothing here may need a newer C library than $GPU_GLIBC (default 2.39) has.
# Exit codes: 0 done; 1 something that must be there is not, or it is too large; 2 usage.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
target=${CARGO_TARGET_DIR:-$root/target}
pool=$target/gpu-pack
say() { printf 'pack-gpu: %s\n' "$*" >&2; }

previous='' cifar='' carry=$here/gpu-carry tiny=no
while [ $# -gt 0 ]; do
  case $1 in
    --tiny) tiny=yes && shift && continue ;;
    -h | --help) sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --previous | --cifar | --out) ;;
    *) say "unknown: $1; usage: benches/pack-gpu.sh [--previous DIR] [--cifar DIR] [--out DIR] [--tiny]" && exit 2 ;;
  esac
  [ $# -gt 1 ] || { say "$1 needs a folder" && exit 2; }
  case $1 in
    --previous) previous=$2 ;;
    --cifar) cifar=$2 ;;
    --out) carry=$2 ;;
  esac
  shift 2
done
if [ -n "$previous" ] && [ ! -s "$previous/results.jsonl" ]; then say "no results.jsonl in $previous" && exit 1; fi
if [ -n "$cifar" ] && [ ! -s "$cifar/data_batch_1.bin" ]; then say "no data_batch_1.bin in $cifar" && exit 1; fi
program=${NIN_WGPU:-$target/release/nin-wgpu}
[ -x "$program" ] || { say "no program at $program: run 'make build' first" && exit 1; }
command -v xz >/dev/null || say "note: no xz here: Python compresses, on one core"

glibc=${GPU_GLIBC:-2.39}
# The newest version of the C library that a file asks for.
needs_glibc() { { LC_ALL=C grep -ao 'GLIBC_2\.[0-9.]*' "$1" || echo GLIBC_2.0; } | sed 's/GLIBC_//; s/\.$//' | sort -uV | tail -1; }
# fits FILE: whether the GPU machine's C library is new enough for it.
fits() { [ "$(printf '%s\n%s\n' "$(needs_glibc "$1")" "$glibc" | sort -V | tail -1)" = "$glibc" ]; }

fresh=$carry.new
rm -rf "$fresh"
mkdir -p "$fresh/lib" "$pool"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- programs

cp "$program" "$work/nin-wgpu"
if command -v strip >/dev/null; then strip -s "$work/nin-wgpu" 2>/dev/null || true; fi
fits "$work/nin-wgpu" || { say "$program needs a C library of version $(needs_glibc "$work/nin-wgpu"), the GPU machine's is taken for $glibc: GPU_GLIBC" && exit 1; }
if [ $tiny = yes ]; then level=1; else level=9; fi
packed=$pool/nin-wgpu-$(sha256sum "$work/nin-wgpu" | cut -c1-16)-$level.xz
if [ ! -s "$packed" ]; then
  rm -f "$pool"/nin-wgpu-*-$level.xz
  if command -v xz >/dev/null; then
    xz -$level -T0 -c "$work/nin-wgpu" >"$packed.part"
  else
    "${PYTHON:-python3}" -c 'import lzma, sys
open(sys.argv[2], "wb").write(lzma.compress(open(sys.argv[1], "rb").read(), preset=int(sys.argv[3])))' "$work/nin-wgpu" "$packed.part" $level
  fi
  mv "$packed.part" "$packed"
fi
cp "$packed" "$fresh/nin-wgpu.xz"
git -C "$root" describe --always --dirty --abbrev=9 --exclude='*' >"$fresh/commit" 2>/dev/null || echo unknown >"$fresh/commit"

if [ -s "$here/registers/Cargo.toml" ] && command -v cargo >/dev/null; then
  (cd "$root" && cargo build --release --quiet --manifest-path benches/registers/Cargo.toml --target-dir "$target/registers" >&2) ||
    say "note: benches/registers cannot be built here"
fi
registers=${REGISTERS:-$target/registers/release/registers}
if [ -x "$registers" ]; then
  cp "$registers" "$fresh/registers"
  if command -v strip >/dev/null; then strip -s "$fresh/registers" 2>/dev/null || true; fi
else
  say "note: no program at $registers: registers and spills will not be read there"
fi

# kernels FOLDER FLAGS...
kernels() {
  local folder=$1
  shift
  if [ -n "${KERNEL_MATRIX:-}" ]; then
    "$KERNEL_MATRIX" "$folder" "$@" >&2
  elif grep -q '"kernel_matrix"' "$root/Cargo.toml" && command -v cargo >/dev/null; then
    (cd "$root" && cargo run --release --quiet --example kernel_matrix -- "$folder" "$@" >&2)
  else
    say "note: no generator of kernels here (the example kernel_matrix): none will be measured there"
  fi
}
if [ $tiny = no ]; then
  kernels "$fresh/kernels"
else
  kernels "$fresh/kernels-tiny" --tiny
  # Enough to see them come and go; tests prove all of them.
  if [ -s "$fresh/kernels-tiny/kernels.jsonl" ]; then
    awk 'NR % 48 == 1' "$fresh/kernels-tiny/kernels.jsonl" >"$work/kernels.jsonl"
    mv "$work/kernels.jsonl" "$fresh/kernels-tiny/"
  fi
fi

# --- libraries

# Places of Debian's archive as this system's own sources name them, a line each.
archives() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' || true
  cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs: *//p' | tr ' ' '\n' || true
}

# download SUITE PACKAGE: unpacks Debian's package of that suite into $work/SUITE without touching this system's lists.
download() {
  local suite=$1 package=$2 apt=$work/apt-$1 archive
  archive=$(archives | grep '/debian/*$' | sed -n 1p) || return 1
  if [ ! -d "$apt" ]; then
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages"
    printf 'deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$archive" "$suite" >"$apt/sources.list"
    touch "$apt/status"
  fi
  local options=(-q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$apt/lists"
    -o Dir::Cache="$apt/cache" -o Dir::State::status="$apt/status" -o APT::Architecture=amd64 -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
  if [ ! -e "$apt/updated" ]; then
    apt-get "${options[@]}" update >"$apt/log" 2>&1 </dev/null || return 1
    touch "$apt/updated"
  fi
  (cd "$apt/packages" && apt-get "${options[@]}" download "$package" >>"$apt/log" 2>&1 </dev/null) || return 1
  dpkg -x "$apt/packages/${package}"_*.deb "$work/$suite"
}

# The newest loader that runs there; kept in the target folder, which `make clean`s and new checkouts empty.
new_loader() {
  local suite found
  if [ -s "$pool/libvulkan.so.1" ] && [ -s "$pool/loader-version" ]; then return 0; fi
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
  for suite in sid trixie-backports trixie; do
    if ! download $suite libvulkan1; then continue; fi
    found=$(compgen -G "$work/$suite/usr/lib/x86_64-linux-gnu/libvulkan.so.1.*" | sed -n 1p) || continue
    if ! fits "$found"; then
      say "note: the loader of $suite needs a C library of version $(needs_glibc "$found")"
      continue
    fi
    cp "$found" "$pool/libvulkan.so.1"
    basename "$found" | sed "s/libvulkan.so.//; s/$/ of Debian $suite/" >"$pool/loader-version"
    return 0
  done
  return 1
}

known=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null || true)
# take SONAME PACKAGE: from this system, else from its package.
take() {
  local path
  path=$(awk -v name="$1" '$1 == name && /x86-64/ { print $NF; exit }' <<<"$known")
  if [ -z "$path" ] && [ -s "$pool/$1" ]; then path=$pool/$1; fi
  if [ -z "$path" ] && command -v apt-get >/dev/null && (cd "$work" && apt-get -q download "$2" >>"$work/apt.log" 2>&1 </dev/null); then
    dpkg -x "$work/$2"_*.deb "$work/packages"
    path=$(find "$work/packages" -name "$1" | sed -n 1p)
    if [ -n "$path" ]; then cp -L "$path" "$pool/$1"; fi
  fi
  if [ -z "$path" ]; then return 1; fi
  if ! fits "$path"; then
    say "note: $1 needs a C library of version $(needs_glibc "$path") and is left out"
    return 1
  fi
  cp -L "$path" "$fresh/lib/$1"
}

if new_loader; then
  cp "$pool/libvulkan.so.1" "$pool/loader-version" "$fresh/lib/"
elif take libvulkan.so.1 libvulkan1; then
  say "note: no loader of Debian 13 or newer could be had; this system's is carried, which may not know cooperative matrices"
  basename "$(readlink -f "$(awk '$1 == "libvulkan.so.1" { print $NF; exit }' <<<"$known")")" >"$fresh/lib/loader-version"
else
  say "no libvulkan.so.1 here, and it cannot be downloaded: install the Vulkan loader (Debian: libvulkan1)"
  exit 1
fi
missing=()
while read -r library package; do
  take "$library" "$package" || missing+=("$library")
done <<'EOF'
libEGL.so.1 libegl1
libGL.so.1 libgl1
libGLdispatch.so.0 libglvnd0
libGLX.so.0 libglx0
libOpenGL.so.0 libopengl0
libGLESv2.so.2 libgles2
libX11.so.6 libx11-6
libXext.so.6 libxext6
libxcb.so.1 libxcb1
libXau.so.6 libxau6
libXdmcp.so.6 libxdmcp6
libbsd.so.0 libbsd0
libmd.so.0 libmd0
EOF
if [ ${#missing[@]} -gt 0 ]; then say "note: ${missing[*]} are not here; NVIDIA's driver may want them where the GPU machine lacks them, too"; fi

# --- data

fashion() {
  local folder
  for folder in "${NIN_WGPU_DATA:+$NIN_WGPU_DATA/fashion-mnist}" /usr/share/datasets/fashion-mnist "$pool/fashion-mnist"; do
    if [ -n "$folder" ] && [ -s "$folder/train-images-idx3-ubyte.gz" ]; then
      mkdir -p "$fresh/data/fashion-mnist"
      cp -L "$folder"/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz "$fresh/data/fashion-mnist/"
      return 0
    fi
  done
  return 1
}
if [ $tiny = yes ]; then
  mkdir -p "$fresh/data/fashion-mnist"
  cp "$root"/assets/fashion-mnist-mini/*.gz "$fresh/data/fashion-mnist/"
elif ! fashion; then
  if command -v apt-get >/dev/null && (cd "$work" && apt-get -q download dataset-fashion-mnist >>"$work/apt.log" 2>&1 </dev/null); then
    dpkg -x "$work"/dataset-fashion-mnist_*.deb "$work/packages"
    cp -RL "$work/packages/usr/share/datasets/fashion-mnist" "$pool/"
  fi
  fashion || say "note: Fashion-MNIST is not here (Debian: dataset-fashion-mnist): the training recipe will fail there"
fi

if [ -n "$previous" ]; then
  mkdir "$fresh/previous"
  for file in "$previous"/results.jsonl "$previous"/log "$previous"/kit.tar.gz "$previous"/train-state.tar.gz.*; do
    if [ -e "$file" ]; then cp "$file" "$fresh/previous/"; fi
  done
fi

# --- sizes

bytes_of() { du -sb --apparent-size "$1" | cut -f1; }
tree_bytes() {
  if git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
    (cd "$root" && git ls-files -co --exclude-standard -z | xargs -0 -r stat -c %s 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }')
  else
    du -sb --apparent-size --exclude='gpu-carry*' --exclude=target "$root" | cut -f1
  fi
}
mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1048576 }'; }
tree=$(tree_bytes)
# allowed FOLDER: whether the tree and the folder fit into one call.
allowed() {
  local folder=$1 bytes
  bytes=$(bytes_of "$folder")
  say "$(basename "${folder%.new}"): $(mib "$bytes") MiB, with the tree $(mib $((bytes + tree))) of ${CARRY_MIB:-64} MiB"
  if [ $((bytes + tree)) -le $((${CARRY_MIB:-64} * 1048576)) ]; then return 0; fi
  say "too large; the tree has $(mib "$tree") MiB, and the folder:"
  (cd "$folder" && du -sb --apparent-size -- * | sort -rn | while read -r size name; do printf '  %8s MiB  %s\n' "$(mib "$size")" "$name"; done) >&2
  return 1
}

allowed "$fresh" || exit 1
rm -rf "$carry"
mv "$fresh" "$carry"
say "packed $carry, program of commit $(cat "$carry/commit")"

if [ -n "$cifar" ]; then
  pieces=$work/cifar
  "${PYTHON:-python3}" "$here/pack_cifar.py" pack "$cifar" "$pieces" --pieces 2 >&2
  for piece in 1 2; do
    folder=$carry-cifar-$piece
    rm -rf "$folder"
    mkdir -p "$folder"
    mv "$pieces/cifar-10.${piece}of2.xzs" "$folder/"
    allowed "$folder" || exit 1
  done
fi
