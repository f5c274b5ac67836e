# shellcheck shell=bash
# Sourced by the setup scripts: installing system packages with apt or dnf, without questions.
# As root, or through sudo. Every function writes its messages to stderr.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }

# Runs a command as root; fails with a message where that is impossible.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "installing packages needs root or sudo; as root run: $*"
    return 1
  fi
}

quiet_apt() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >&2 </dev/null
}

# Fetches apt's package lists where there are none yet (a fresh container).
apt_lists() {
  ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 && return 0
  say "apt has no package lists yet: apt-get update"
  quiet_apt update
}

# apt_install PACKAGE...: installs, once more after an update where the first try fails.
apt_install() {
  apt_lists || return 1
  quiet_apt install --no-install-recommends "$@" && return 0
  say "the install failed, perhaps for old package lists: apt-get update and once more"
  quiet_apt update && quiet_apt install --no-install-recommends "$@"
}

dnf_install() { as_root dnf install -y "$@" >&2 </dev/null; }
