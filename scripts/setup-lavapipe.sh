#!/usr/bin/env bash
# Unpacks a newer Mesa than this system has, for its Vulkan driver for CPUs (lavapipe, which calls its
# device llvmpipe): it multiplies real cooperative matrices, 8 x 8 in f16. Mesa 26.1 has them, too, but
# 26.1.6 ends with a segmentation fault where it compiles kernels for them; 26.2.6 does not.
#
#   scripts/setup-lavapipe.sh FOLDER [SUITE]
#
# SUITE is one of Debian's (trixie: Mesa 25.0; trixie-backports; sid); without it the first of
# trixie-backports and sid that has Mesa 26.2 or later. FOLDER (under target/) receives
#   root/          the driver, the Vulkan loader and every library they need, the C library too
#   lvp_icd.json   the driver's manifest
#   run            starts a program there: FOLDER/run target/release/nin-wgpu devices
#   packages       what was unpacked: name, version
# Nothing is installed and the system's apt is left as it is: lists and packages go to a folder of
# their own, so this works without root. The archive is the one that this system's apt uses, and
# apt checks its signature with Debian's keys (package debian-archive-keyring). Lists that a mirror has
# not renewed in time are used, which is said: they are signed as well, and only old.
# What is there already is left alone. Where the system cannot have it, FOLDER.skipped gives the
# reason in one line and FOLDER is not there.
# Exit codes: 0 unpacked, or skipped with a reason; 1 FOLDER cannot be written.
set -euo pipefail
source "$(dirname "$0")/packages.sh"

folder=${1:?usage: scripts/setup-lavapipe.sh FOLDER [SUITE]}
asked=${2:-}
mkdir -p "$(dirname "$folder")"
folder=$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")
least=26.2
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
rm -f "$folder.skipped"

skip() {
  rm -rf "$folder"
  printf '%s\n' "$*" >"$folder.skipped"
  say "$(basename "$folder"): $*"
  exit 0
}

# The version of a package that was unpacked.
unpacked_version() { sed -n "s/^$1 //p" "$folder/packages"; }

tell() {
  say "Mesa $(unpacked_version mesa-vulkan-drivers) is in $folder"
  say "manifest: $folder/lvp_icd.json; start a program with: $folder/run PROGRAM [ARGUMENTS]"
}

if [ -x "$folder/run" ] && [ -s "$folder/packages" ]; then
  if [ -z "$asked" ] || [ "$(cat "$folder/suite")" = "$asked" ]; then
    tell
    exit 0
  fi
fi

[ "$(uname -s)" = Linux ] || skip "only taken from Debian's packages; this is $(uname -s)"
for tool in apt-get apt-cache apt-config dpkg dpkg-deb; do
  command -v "$tool" >/dev/null || skip "only taken from Debian's packages; no $tool here"
done
[ -s "$keyring" ] || skip "Debian's signatures cannot be checked: no $keyring (package debian-archive-keyring)"

work=$(mktemp -d)
trap 'rm -rf "$work" "$folder.partial"' EXIT
# apt as root downloads as a user of its own, who has to get there.
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/nothing"
: >"$work/status"

# Settings of this system's apt that reach the archive, and none of its sources, preferences or hooks.
{
  apt-config dump | grep -E '^Acquire::(http|https|Retries|ForceIPv)' || true
  cat <<SETTINGS
Dir::State "$work";
Dir::State::Lists "$work/lists";
Dir::State::status "$work/status";
Dir::State::extended_states "$work/extended_states";
Dir::Cache "$work/cache";
Dir::Etc::main "$work/none";
Dir::Etc::parts "$work/nothing";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/nothing";
Dir::Etc::preferences "$work/none";
Dir::Etc::preferencesparts "$work/nothing";
Dir::Log "$work";
Acquire::Languages "none";
APT::Update::Error-Mode "any";
APT::Install-Recommends "false";
Debug::NoLocking "true";
SETTINGS
} >"$work/apt.conf"
own_apt() { APT_CONFIG="$work/apt.conf" "$@" </dev/null; }

# The archives that this system's apt uses, without those for security updates.
mapfile -t archives < <(apt-get update --print-uris 2>/dev/null </dev/null |
  sed -n "s|^'\([^']*\)/dists/[^']*'.*|\1|p" | grep -v security | sort -u)
[ "${#archives[@]}" -gt 0 ] || skip "this system's apt has no archive to take Debian's packages from"

# What is in the way, where something is.
why=
# find_suite SUITE: leaves the lists of SUITE in the work folder, or the reason in $why.
find_suite() {
  local suite=$1 archive line
  for archive in "${archives[@]}"; do
    : >"$work/sources.list"
    for line in ${suite/%-backports/ $suite}; do
      echo "deb [signed-by=$keyring target=Packages] $archive $line main" >>"$work/sources.list"
    done
    rm -rf "$work"/lists/*_dists_*
    if own_apt apt-get -q update >"$work/log" 2>&1; then
      return 0
    fi
    if grep -q '^E:.* is expired' "$work/log" &&
      own_apt apt-get -q -o Acquire::Check-Valid-Until=false update >"$work/log.old" 2>&1; then
      say "the lists of $suite at $archive are out of date, and are used: $(grep -m1 -o 'invalid since [^)]*' "$work/log")"
      return 0
    fi
    # A signature that does not hold says more than the refusal that follows from it.
    line=$(grep -m1 -E 'NO_PUBKEY|[Ss]ignature|not signed' "$work/log" || grep -m1 -E '^[EW]:' "$work/log" || tail -n1 "$work/log")
    why="apt refuses $suite of $archive: $(sed -E 's/^([EW]:)? *//' <<<"$line")"
    # Debian's own archive has the reason; the others never had the suite.
    case "$archive" in */debian) return 1 ;; esac
  done
  return 1
}

# download SUITE: the packages of SUITE, and all that they need, into the work folder; or the reason in $why.
download() {
  local suite=$1 version
  find_suite "$suite" || return 1
  version=$(own_apt apt-cache -t "$suite" policy mesa-vulkan-drivers 2>/dev/null | sed -n 's/^ *Candidate: *//p')
  if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    why="$suite has no mesa-vulkan-drivers"
    return 1
  fi
  if [ -z "$asked" ] && dpkg --compare-versions "$version" lt "$least"; then
    why="$suite has Mesa $version; kernels for cooperative matrices need $least"
    return 1
  fi
  say "downloading Mesa $version of $suite with its libraries (about 65 MB, unpacked, not installed)"
  if ! own_apt apt-get -q -y -t "$suite" --download-only install mesa-vulkan-drivers libvulkan1 patchelf >"$work/log" 2>&1; then
    why="apt cannot download Mesa of $suite: $(grep -m1 '^E:' "$work/log" | cut -c4-)"
    return 1
  fi
}

suite=
for candidate in ${asked:-trixie-backports sid}; do
  if download "$candidate"; then
    suite=$candidate
    break
  fi
done
[ -n "$suite" ] || skip "$why"

partial=$folder.partial
rm -rf "$folder" "$partial"
mkdir -p "$partial/root"
for package in "$work"/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$partial/root"
  dpkg-deb -W --showformat='${Package} ${Version}\n' "$package" >>"$partial/packages"
done
printf '%s\n' "$suite" >"$partial/suite"

# Of all that Mesa's package has, lavapipe.
lavapipe=$(cd "$partial" && find root -name libvulkan_lvp.so -print -quit)
[ -n "$lavapipe" ] || skip "mesa-vulkan-drivers of $suite has no lavapipe for $(dpkg --print-architecture)"
libraries=$(dirname "$lavapipe")
loader=$(cd "$partial" && find "$libraries" -maxdepth 1 -name 'ld-linux*.so.*' -print -quit)
[ -n "$loader" ] || skip "libc6 of $suite has no dynamic loader beside $libraries"
find "$partial/$libraries" -maxdepth 1 -name 'libvulkan_*.so' ! -name libvulkan_lvp.so -delete
rm -rf "$partial/root/usr/share"
# A library with a RUNPATH of its own (libLLVM) would look in there and then in the system only.
patchelf() { "$partial/$loader" --library-path "$partial/$libraries" "$partial/root/usr/bin/patchelf" "$@"; }
while read -r library; do
  if [ -n "$(patchelf --print-rpath "$library" 2>/dev/null)" ]; then
    patchelf --remove-rpath "$library"
  fi
done < <(find "$partial/$libraries" -maxdepth 1 -type f -name 'lib*.so*')
# The path is relative to the manifest, so that FOLDER can be moved.
sed "s|\"library_path\": *\"[^\"]*\"|\"library_path\": \"./$lavapipe\"|" \
  <(dpkg-deb --fsys-tarfile "$work"/cache/archives/mesa-vulkan-drivers_*.deb |
    tar -xO --wildcards './usr/share/vulkan/icd.d/lvp_icd*.json') >"$partial/lvp_icd.json"

# The program may start itself again, and tests start it, so a program has to find the unpacked
# libraries by itself: through `ld.so --library-path` its own path would be the loader's, and with
# LD_LIBRARY_PATH every other program would get a C library that is not its loader's.
cat >"$partial/run" <<RUN
#!/usr/bin/env bash
# Starts a program with the unpacked loader, C library and Vulkan driver; written by setup-lavapipe.sh.
#   run PROGRAM [ARGUMENTS]   runs a copy of PROGRAM that names the unpacked loader and libraries
#   run --copy PROGRAM        only makes that copy, and prints its path
set -euo pipefail
here=\$(cd "\$(dirname "\$0")" && pwd)
libraries=\$here/$libraries
loader=\$here/$loader

# The path of a copy of program \$1, made again where the program has changed. A build's hash is left out of its name.
copy() {
  local program name made
  program=\$(command -v -- "\$1") || { echo "run: no program \$1" >&2; exit 127; }
  program=\$(realpath "\$program")
  name=\$(basename "\$program" | sed -E 's/-[0-9a-f]{16}\$//')
  made="\$here \$program \$(stat -c '%s %Y %i' "\$program")"
  if [ "\$(cat "\$here/programs/\$name.made" 2>/dev/null)" != "\$made" ]; then
    mkdir -p "\$here/programs"
    cp "\$program" "\$here/programs/\$name.\$\$"
    # RPATH, unlike RUNPATH, also serves the libraries that libraries load.
    "\$loader" --library-path "\$libraries" "\$here/root/usr/bin/patchelf" \\
      --set-interpreter "\$loader" --force-rpath --set-rpath "\$libraries" "\$here/programs/\$name.\$\$" >&2
    mv "\$here/programs/\$name.\$\$" "\$here/programs/\$name"
    printf '%s\n' "\$made" >"\$here/programs/\$name.made"
  fi
  printf '%s\n' "\$here/programs/\$name"
}

if [ "\${1:-}" = --copy ]; then
  copy "\${2:?usage: run --copy PROGRAM}"
  exit 0
fi
program=\$(copy "\${1:?usage: run PROGRAM [ARGUMENTS]}")
shift
unset NIN_WGPU_DEVICE WGPU_ADAPTER_NAME VK_ADD_DRIVER_FILES
# Layers of the system are built for its own loader.
export WGPU_BACKEND=vulkan VK_LOADER_LAYERS_DISABLE='~implicit~'
export VK_DRIVER_FILES="\$here/lvp_icd.json" VK_ICD_FILENAMES="\$here/lvp_icd.json"
exec "\$program" "\$@"
RUN
chmod 755 "$partial/run"
mv "$partial" "$folder"
if ! "$folder/run" --copy /bin/true >/dev/null 2>"$work/log" || ! "$("$folder/run" --copy /bin/true)" 2>>"$work/log"; then
  skip "programs do not start with the C library of $suite: $(tail -n1 "$work/log")"
fi
rm -rf "$folder/programs"
tell
