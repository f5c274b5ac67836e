#!/usr/bin/env bash
# Checks that Rust is here, and installs a C linker where Linux has none (`cc`, which Rust links with).
#
#   scripts/setup-build.sh
#
# Exit codes: 0 `cargo build` can run; 1 something is missing (with what to do).
set -euo pipefail
source "$(dirname "$0")/packages.sh"

needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")

if ! command -v cargo >/dev/null; then
  say "Rust is not installed. Get it with rustup, then open a new shell and run this again:"
  say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y   (needs curl)"
  say "  Windows: https://rustup.rs"
  say "A package 'cargo' from apt or dnf does as well where it is $needed or newer (Debian 12's is not)."
  exit 1
fi

found=$(rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
if [ "$(printf '%s\n%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
  say "Rust $found is too old, this needs $needed: run 'rustup update', or install rustup (https://rustup.rs)"
  exit 1
fi

if [ "$(uname -s)" = Linux ] && ! command -v cc >/dev/null; then
  if command -v apt-get >/dev/null; then
    say "no C linker (cc) found, which Rust links with: installing gcc and libc6-dev with apt"
    apt_install gcc libc6-dev
  elif command -v dnf >/dev/null; then
    say "no C linker (cc) found, which Rust links with: installing gcc with dnf"
    dnf_install gcc
  else
    say "no C linker (cc) found: install gcc or clang with this system's package manager"
    exit 1
  fi
fi
