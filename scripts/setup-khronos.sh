#!/usr/bin/env bash
# Unpacks Khronos' two validators in Debian's newest versions: spirv-val, which reads SPIR-V, and the validation layer,
# which reads what a program asks of Vulkan.
#
#   scripts/setup-khronos.sh FOLDER
#
# FOLDER (under target/) receives
#   spirv-val   a script that starts it with its own C library
#   layers/     the layer's manifest, for VK_LAYER_PATH; programs that load it need a C library of 2.38 or later, such
#               as setup-lavapipe.sh brings
#   root/       both, and what spirv-val needs
#   packages    what was unpacked: name, version
# Nothing is installed, and root is not needed: see unpack.sh.
# What is there already is left alone. Where the system cannot have it, FOLDER.skipped gives the reason in one line and
# FOLDER is not there.
# Exit codes: 0 unpacked, or skipped with a reason; 1 FOLDER cannot be written.
set -euo pipefail
source "$(dirname "$0")/packages.sh"
source "$(dirname "$0")/unpack.sh"

folder=${1:?usage: scripts/setup-khronos.sh FOLDER}
mkdir -p "$(dirname "$folder")"
folder=$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")
suite=sid
# Earlier ones do not know the rules that the lists of the tests name.
least_tools=2026.1
least_layer=1.4.340
rm -f "$folder.skipped"

skip() {
  rm -rf "$folder"
  printf '%s\n' "$*" >"$folder.skipped"
  say "$(basename "$folder"): $*"
  exit 0
}

[ -x "$folder/spirv-val" ] && [ -s "$folder/packages" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work" "$folder.partial"' EXIT
open_apt "$work" || skip "$why"
find_suite "$suite" || skip "$why"
has_version "$suite" spirv-tools "$least_tools" || skip "$why"
has_version "$suite" vulkan-validationlayers "$least_layer" || skip "$why"
say "downloading Khronos' validators of $suite (15 MB, unpacked, not installed)"
download_packages "$suite" spirv-tools vulkan-validationlayers || skip "$why"

partial=$folder.partial
rm -rf "$folder" "$partial"
mkdir -p "$partial/layers"
unpack_packages "$partial"
loader=$(unpacked_loader "$partial")
[ -n "$loader" ] || skip "libc6 of $suite has no dynamic loader beside its libraries"
libraries=$(dirname "$loader")
sed "s|\"library_path\": *\"[^\"]*\"|\"library_path\": \"../$libraries/libVkLayer_khronos_validation.so\"|" \
  "$partial/root/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json" >"$partial/layers/VkLayer_khronos_validation.json"
cat >"$partial/spirv-val" <<RUN
#!/bin/sh
# Starts the unpacked spirv-val; written by setup-khronos.sh.
here=\$(cd "\$(dirname "\$0")" && pwd)
exec "\$here/$loader" --library-path "\$here/$libraries" "\$here/root/usr/bin/spirv-val" "\$@"
RUN
chmod 755 "$partial/spirv-val"
"$partial/spirv-val" --version >/dev/null 2>"$work/log" ||
  skip "spirv-val does not start with the C library of $suite: $(tail -n1 "$work/log")"
mv "$partial" "$folder"
say "spirv-val and the validation layer of $suite are in $folder: $(grep -E '^(spirv-tools|vulkan-validationlayers) ' "$folder/packages" | paste -sd ' ')"
