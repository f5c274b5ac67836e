#!/usr/bin/env bash
# Gets what the tests use beyond Rust and a Vulkan driver. Nothing here is needed to run the program.
#
#   scripts/setup-tests.sh FOLDER
#
# FOLDER (under target/) receives, where they can be had:
#   swiftshader/vk_swiftshader_icd.json   Google's SwiftShader, a second Vulkan driver for CPUs; taken
#                                         from Debian's package chromium-common without installing it
#   node_modules/webgpu                   Dawn for Node: Tint, a second compiler for the shaders
#   lavapipe/run                          starts programs on a newer Mesa, whose CPU driver has matrix
#                                         units; see setup-lavapipe.sh
#   python                                the path of a Python 3 that imports torch and numpy
#   khronos/                              spirv-val and Vulkan's validation layer (setup-khronos.sh)
# and, for each of them that this machine cannot have, NAME.skipped with the reason in one line.
# A tool that is there already is left alone. Fails only where FOLDER cannot be written.
set -euo pipefail
source "$(dirname "$0")/packages.sh"

tools=${1:?usage: scripts/setup-tests.sh FOLDER}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
rm -f "$tools"/*.skipped

# skip NAME REASON: the tests that need NAME are left out, and the summary says so.
skip() {
  printf '%s\n' "$2" >"$tools/$1.skipped"
  say "$1: $2"
}

have_apt() { command -v apt-get >/dev/null; }

setup_swiftshader() {
  local folder="$tools/swiftshader" installed=/usr/lib/chromium work
  [ -s "$folder/vk_swiftshader_icd.json" ] && [ -s "$folder/libvk_swiftshader.so" ] && return 0
  if [ "$(uname -s)" != Linux ]; then
    skip swiftshader "only taken from Debian's packages; this is $(uname -s)"
    return 0
  fi
  rm -rf "$folder"
  mkdir -p "$folder"
  if [ -s "$installed/libvk_swiftshader.so" ] && [ -s "$installed/vk_swiftshader_icd.json" ]; then
    cp "$installed/libvk_swiftshader.so" "$installed/vk_swiftshader_icd.json" "$folder/"
    return 0
  fi
  if ! have_apt; then
    skip swiftshader "only taken from Debian's packages; no apt-get here"
    return 0
  fi
  say "downloading Debian's chromium-common for SwiftShader (30 MB, unpacked under target/, not installed)"
  work=$(mktemp -d)
  apt_lists || true
  if { (cd "$work" && apt-get -q download chromium-common >&2 </dev/null) ||
    { quiet_apt update && (cd "$work" && apt-get -q download chromium-common >&2 </dev/null); }; } &&
    dpkg -x "$work"/chromium-common_*.deb "$work/unpacked" &&
    cp "$work/unpacked$installed/libvk_swiftshader.so" \
      "$work/unpacked$installed/vk_swiftshader_icd.json" "$folder/"; then
    say "SwiftShader is in $folder"
  else
    rm -rf "$folder"
    skip swiftshader "no package chromium-common with libvk_swiftshader.so (Ubuntu has none; Debian does)"
  fi
  rm -rf "$work"
}

# The major version of the node on PATH, or 0.
node_major() { node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p' | grep . || echo 0; }

setup_tint() {
  [ -d "$tools/node_modules/webgpu/dist" ] && [ "$(node_major)" -ge 20 ] && return 0
  if [ "$(node_major)" -lt 20 ] && have_apt; then
    apt_lists || true
    local offered
    offered=$(apt-cache policy nodejs 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9]*\).*/\1/p')
    if [ "${offered:-0}" -ge 20 ]; then
      say "installing Node.js with apt, for Tint"
      # Debian's npm is a package of its own; NodeSource's nodejs brings npm along.
      if apt_install nodejs && ! command -v npm >/dev/null; then apt_install npm || true; fi
    fi
  fi
  if [ "$(node_major)" -lt 20 ] || ! command -v npm >/dev/null; then
    skip tint "needs Node.js 20 or newer with npm, which this system's packages do not offer"
    return 0
  fi
  say "installing Dawn for Node (npm package webgpu, 130 MB under target/), for Tint"
  # --prefix keeps npm from looking for a package.json in the folders above.
  if ! npm install --prefix "$tools" --no-save --no-audit --no-fund --no-package-lock \
    --loglevel=error webgpu@0.6 >&2 </dev/null; then
    skip tint "npm could not install the package webgpu"
  fi
}

# The first Python 3 that imports torch and numpy; fails where there is none.
python_with_torch() {
  local candidate
  for candidate in "${NIN_WGPU_PYTHON:-}" python3 /usr/bin/python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import numpy, torch' >/dev/null 2>&1; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

setup_torch() {
  if ! python_with_torch >"$tools/python" && have_apt; then
    say "installing PyTorch with apt (python3-torch), to open the written weights with it"
    apt_install python3-torch python3-numpy || true
  fi
  if ! python_with_torch >"$tools/python"; then
    rm -f "$tools/python"
    skip torch "no Python here imports torch and numpy, and apt could not install python3-torch"
  fi
}

setup_swiftshader
"$(dirname "$0")/setup-lavapipe.sh" "$tools/lavapipe"
setup_tint
setup_torch
"$(dirname "$0")/setup-khronos.sh" "$tools/khronos"
