# shellcheck shell=bash
# Sourced after packages.sh by the scripts that unpack newer packages of Debian than this system has, with every
# library they need, the C library too. Nothing is installed and the system's apt is left as it is: lists and packages
# go to a folder of their own, so this works without root. The archive is the one that this system's apt uses, and apt
# checks its signature with Debian's keys (package debian-archive-keyring). Lists that a mirror has not renewed in time
# are used, which is said: they are signed as well, and only old.
# Functions that fail leave the reason, one line, in $why.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
why=

# open_apt WORK: readies apt in the empty folder WORK; sets $work and $archives.
open_apt() {
  work=$1
  if [ "$(uname -s)" != Linux ]; then
    why="only taken from Debian's packages; this is $(uname -s)"
    return 1
  fi
  local tool
  for tool in apt-get apt-cache apt-config dpkg dpkg-deb; do
    if ! command -v "$tool" >/dev/null; then
      why="only taken from Debian's packages; no $tool here"
      return 1
    fi
  done
  if [ ! -s "$keyring" ]; then
    why="Debian's signatures cannot be checked: no $keyring (package debian-archive-keyring)"
    return 1
  fi
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
  # The archives that this system's apt uses, without those for security updates.
  mapfile -t archives < <(apt-get update --print-uris 2>/dev/null </dev/null |
    sed -n "s|^'\([^']*\)/dists/[^']*'.*|\1|p" | grep -v security | sort -u)
  if [ "${#archives[@]}" -eq 0 ]; then
    why="this system's apt has no archive to take Debian's packages from"
    return 1
  fi
}

own_apt() { APT_CONFIG="$work/apt.conf" "$@" </dev/null; }

# find_suite SUITE: leaves the lists of SUITE in the work folder.
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

# has_version SUITE PACKAGE LEAST: whether the suite that was found has the package in version LEAST or later; sets
# $version.
has_version() {
  version=$(own_apt apt-cache -t "$1" policy "$2" 2>/dev/null | sed -n 's/^ *Candidate: *//p')
  if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    why="$1 has no $2"
    return 1
  fi
  if dpkg --compare-versions "$version" lt "$3"; then
    why="$1 has $2 $version, too old: $3 is needed"
    return 1
  fi
}

# download_packages SUITE PACKAGE...: the packages and all that they need, into the work folder.
download_packages() {
  local suite=$1
  shift
  if ! own_apt apt-get -q -y -t "$suite" --download-only install "$@" >"$work/log" 2>&1; then
    why="apt cannot download $1 of $suite: $(grep -m1 '^E:' "$work/log" | cut -c4-)"
    return 1
  fi
}

# unpack_packages FOLDER: everything that was downloaded into FOLDER/root, and names and versions into FOLDER/packages.
unpack_packages() {
  local package
  mkdir -p "$1/root"
  for package in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$1/root"
    dpkg-deb -W --showformat='${Package} ${Version}\n' "$package" >>"$1/packages"
  done
}

# unpacked_loader FOLDER: the path of the dynamic loader in FOLDER, from there; its folder holds the libraries.
unpacked_loader() { (cd "$1" && find root/usr/lib/*-linux-* -maxdepth 1 -name 'ld-linux*.so.*' -print -quit); }
