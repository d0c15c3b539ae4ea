#!/usr/bin/env bash
# Makes a fresh clone ready (dependencies, and with them the right Node), then runs a script of this folder with that Node.
#   bash scripts/bootstrap.sh scripts/NAME.ts [argument …]
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }
fail() { printf 'postern: %s\n' "$*" >&2; exit 1; }

# `npm ci` takes some 20 s; it is left out when the lock file is the one that was installed last.
mark=node_modules/.postern-lock
lock=$(sha256sum package-lock.json | cut -d' ' -f1)
if [ "$(cat "$mark" 2>/dev/null)" != "$lock" ]; then
  command -v npm >/dev/null || fail 'npm is not on this machine: install Node.js 20 or newer (Debian: apt-get install nodejs npm)'
  say 'installing dependencies (npm ci) …'
  npm ci --no-audit --no-fund --loglevel=error >&2 || fail 'npm ci failed: its reason stands above'
  printf '%s' "$lock" >"$mark"
fi

# The exact Node of package.json comes with the dependencies where there is one for this machine.
node=node_modules/.bin/node
if [ ! -x "$node" ]; then
  node=$(command -v node) || fail 'no Node.js found'
  major=$("$node" -p 'process.versions.node.split(".")[0]')
  [ "$major" -ge 24 ] || fail "Node.js 24 or newer is needed, this machine has $("$node" --version) and no packaged one for its processor"
fi
PATH="$PWD/node_modules/.bin:$PATH" exec "$node" "$@"
