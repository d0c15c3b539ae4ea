#!/usr/bin/env bash
# Makes sure that the named Debian packages are installed, without asking and without starting their daemons.
#   bash scripts/debian.sh postfix dovecot-core ...
# Exit codes: 0 all are installed; 2 wrong use; 3 they cannot be installed here (the reason is the last line on stderr).
set -euo pipefail

readonly POLICY=/usr/sbin/policy-rc.d
readonly SAVED=/usr/sbin/policy-rc.d.before-postern
readonly MARK='# written by postern scripts/debian.sh'
readonly LOCK=/run/lock/postern-debian.lock

say() { printf 'debian: %s\n' "$*"; }

cannot() {
  printf 'cannot install here: %s\n' "$*" >&2
  exit 3
}

missing() { # prints those of its arguments that are not fully installed, one a line
  local package status
  for package in "$@"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || printf '%s\n' "$package"
  done
}

is_debian() {
  [[ -r /etc/os-release ]] || return 1
  # shellcheck disable=SC1091
  (. /etc/os-release && [[ " ${ID:-} ${ID_LIKE:-} " == *' debian '* ]])
}

restore_policy() {
  # Only our own file is taken away: somebody else's, written meanwhile, stays.
  if [[ -f $POLICY ]] && grep -qxF "$MARK" "$POLICY"; then rm -f "$POLICY"; fi
  if [[ -e $SAVED || -L $SAVED ]]; then
    if [[ -e $POLICY ]]; then rm -f "$SAVED"; else mv "$SAVED" "$POLICY"; fi
  fi
}

forbid_daemons() {
  restore_policy # of an earlier run that was killed
  if [[ -e $POLICY || -L $POLICY ]]; then mv "$POLICY" "$SAVED"; fi
  printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$POLICY"
  chmod 755 "$POLICY"
}

[[ $# -gt 0 ]] || { printf 'usage: %s PACKAGE...\n' "$0" >&2; exit 2; }

command -v dpkg-query >/dev/null || cannot 'not a Debian system (no dpkg-query)'
mapfile -t wanted < <(missing "$@")
if [[ ${#wanted[@]} -eq 0 ]]; then
  say "all $# packages are installed"
  exit 0
fi

is_debian || cannot "not a Debian system, and these are missing: ${wanted[*]}"
command -v apt-get >/dev/null || cannot "no apt-get, and these are missing: ${wanted[*]}"
[[ $(id -u) -eq 0 ]] || cannot "not root, and these are missing: ${wanted[*]}"

# Two runs at once would take each other's policy-rc.d for the machine's own.
mkdir -p "${LOCK%/*}"
exec 9>"$LOCK"
flock -w 600 9 || cannot 'another run has been installing for ten minutes'
mapfile -t wanted < <(missing "$@")
if [[ ${#wanted[@]} -eq 0 ]]; then
  say "all $# packages are installed"
  exit 0
fi

transcript=$(mktemp)
finish() {
  restore_policy
  rm -f "$transcript"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

export DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical
# 9>&-: nothing that a package leaves running may hold our lock.
apt() { apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 "$@" >>"$transcript" 2>&1 </dev/null 9>&-; }
last_words() { grep -E '^(E:|dpkg: error)' "$transcript" | tail -n 3 | tr '\n' ' '; }

say 'reading the package lists'
# A failure alone says nothing yet: the lists from an earlier update may do.
apt update || say "apt-get update failed: $(last_words)"

# Should this machine boot its Postfix one day, it must listen on loopback only.
if [[ " ${wanted[*]} " == *' postfix '* && ! -e /etc/postfix/main.cf ]] && command -v debconf-set-selections >/dev/null; then
  printf 'postfix postfix/main_mailer_type select Local only\n' | debconf-set-selections
fi

say "installing ${wanted[*]}"
forbid_daemons
if ! apt install --yes --no-install-recommends "${wanted[@]}"; then
  tail -n 20 "$transcript" >&2
  cannot "apt-get install failed: $(last_words)"
fi

mapfile -t left < <(missing "$@")
[[ ${#left[@]} -eq 0 ]] || cannot "apt-get reported success, but these are missing: ${left[*]}"
say "installed ${#wanted[@]} packages"
