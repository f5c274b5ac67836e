#!/usr/bin/env bash
# Builds benches/gpu-carry/, the folder that benches/gpu.sh needs on a GPU machine without network.
#
#   benches/pack-gpu.sh [--previous DIR]
#
# What goes in (git ignores the folder):
#   nin-wgpu     $NIN_WGPU, default target/release/nin-wgpu, without symbols; the GPU machine's C library must not
#                be older than that of the machine it was built on
#   commit       what it was built from
#   lib/         the Vulkan loader and the GLVND libraries (Debian: libvulkan1 libegl1 libgl1 libglvnd0 libglx0
#                libopengl0 libgles2); the loader must be installed here, the others are taken where they are
#   data/        Fashion-MNIST from $NIN_WGPU_DATA/fashion-mnist or /usr/share/datasets/fashion-mnist, if there
#   previous/    what an earlier run of gpu.sh left in its $OUT, without its weights, so that it is gone on with
#                (--previous DIR)
# The folder has about 60 MB with all of that. Nothing in it is fetched.
# Exit codes: 0 done; 1 something that must be there is not; 2 usage.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
carry=$here/gpu-carry

say() { printf 'pack-gpu: %s\n' "$*" >&2; }
previous=''
if [ $# -eq 2 ] && [ "$1" = --previous ]; then
  previous=$2
elif [ $# -gt 0 ]; then
  say "usage: benches/pack-gpu.sh [--previous DIR]"
  exit 2
fi
if [ -n "$previous" ] && [ ! -s "$previous/results.jsonl" ]; then say "no results.jsonl in $previous" && exit 1; fi
program=${NIN_WGPU:-$root/target/release/nin-wgpu}
[ -x "$program" ] || { say "no program at $program: run 'make build' first" && exit 1; }

fresh=$carry.new
rm -rf "$fresh"
mkdir -p "$fresh/lib"

cp "$program" "$fresh/nin-wgpu"
if command -v strip >/dev/null; then strip -s "$fresh/nin-wgpu" 2>/dev/null || true; fi
git -C "$root" describe --always --dirty --abbrev=9 --exclude='*' >"$fresh/commit" 2>/dev/null || echo unknown >"$fresh/commit"

known=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p)
for library in libvulkan.so.1 libEGL.so.1 libGL.so.1 libGLdispatch.so.0 libGLX.so.0 libOpenGL.so.0 libGLESv2.so.2; do
  path=$(awk -v name="$library" '$1 == name && /x86-64/ { print $NF; exit }' <<<"$known")
  if [ -n "$path" ]; then
    cp -L "$path" "$fresh/lib/$library"
  elif [ $library = libvulkan.so.1 ]; then
    say "no $library here: install the Vulkan loader (Debian: libvulkan1)"
    exit 1
  else
    say "note: no $library here; NVIDIA's driver may want it where the GPU machine lacks it, too"
  fi
done

data=''
for folder in "${NIN_WGPU_DATA:+$NIN_WGPU_DATA/fashion-mnist}" /usr/share/datasets/fashion-mnist; do
  if [ -z "$data" ] && [ -n "$folder" ] && [ -s "$folder/train-images-idx3-ubyte.gz" ]; then data=$folder; fi
done
if [ -n "$data" ]; then
  mkdir -p "$fresh/data/fashion-mnist"
  cp -L "$data"/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz "$fresh/data/fashion-mnist/"
else
  say "note: Fashion-MNIST is not here (Debian: dataset-fashion-mnist): the training recipe will fail there"
fi

if [ -n "$previous" ]; then
  mkdir "$fresh/previous"
  for file in "$previous"/results.jsonl "$previous"/train-metrics.jsonl "$previous"/train-state.tar.gz.*; do
    if [ -e "$file" ]; then cp "$file" "$fresh/previous/"; fi
  done
fi

rm -rf "$carry"
mv "$fresh" "$carry"
say "benches/gpu-carry: $(du -sm --apparent-size "$carry" | cut -f1) MiB, program of commit $(cat "$carry/commit")"
