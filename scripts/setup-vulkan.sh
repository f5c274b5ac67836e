#!/usr/bin/env bash
# Installs Mesa's Vulkan driver for CPUs (llvmpipe) where this machine has no usable Vulkan device.
#
#   scripts/setup-vulkan.sh
#
# Does nothing where Vulkan is there already, and on macOS (Metal) and Windows (DirectX 12), whose
# GPU interfaces are part of the system. On Debian and Ubuntu it uses apt, on Fedora and its
# relatives dnf: as root, or through sudo. It says what it does and asks no question.
# Exit codes: 0 a Vulkan device should be found now; 1 it could not be installed (with what to do).
set -euo pipefail
source "$(dirname "$0")/packages.sh"

case "$(uname -s)" in
  Linux) ;;
  Darwin | MINGW* | MSYS* | CYGWIN*) exit 0 ;;
  *)
    say "unknown system '$(uname -s)': install a Vulkan driver and the Vulkan loader, then run this again"
    exit 1
    ;;
esac

# The Vulkan loader, libvulkan.so.1.
has_loader() {
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep 'libvulkan\.so\.1' >/dev/null && return 0
  compgen -G '/usr/lib*/libvulkan.so.1' >/dev/null || compgen -G '/usr/local/lib*/libvulkan.so.1' >/dev/null
}

# Driver manifests the loader would read, one a line.
driver_manifests() {
  local root
  for root in /etc /usr/share /usr/local/share "${XDG_DATA_HOME:-${HOME:-/root}/.local/share}"; do
    compgen -G "$root/vulkan/icd.d/*.json" || true
  done
}

# A driver that has a device: one for the CPU, or one for a GPU with a GPU's device node beside it.
has_device() {
  [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}${VK_ADD_DRIVER_FILES:-}" ] && return 0
  local manifests
  manifests=$(driver_manifests)
  [ -n "$manifests" ] || return 1
  grep -qE '/(lvp|vk_swiftshader)[^/]*\.json$' <<<"$manifests" && return 0
  compgen -G '/dev/dri/renderD*' >/dev/null || compgen -G '/dev/nvidia[0-9]*' >/dev/null || [ -e /dev/dxg ]
}

if has_loader && has_device; then exit 0; fi

if command -v apt-get >/dev/null; then
  say "no Vulkan device found: installing Mesa's CPU driver with apt (mesa-vulkan-drivers libvulkan1)"
  apt_install mesa-vulkan-drivers libvulkan1
elif command -v dnf >/dev/null; then
  say "no Vulkan device found: installing Mesa's CPU driver with dnf (mesa-vulkan-drivers vulkan-loader)"
  dnf_install mesa-vulkan-drivers vulkan-loader
else
  say "no Vulkan device found, and neither apt-get nor dnf is here: install Mesa's CPU driver and the"
  say "Vulkan loader with this system's package manager (Arch: vulkan-swrast vulkan-icd-loader;"
  say "Alpine: mesa-vulkan-swrast vulkan-loader; openSUSE: libvulkan_lvp libvulkan1)"
  exit 1
fi

if has_loader && has_device; then
  say "done: Vulkan on the CPU (llvmpipe) is installed"
else
  say "the packages are installed, but no Vulkan driver shows; 'vulkaninfo --summary' may tell why"
  exit 1
fi
