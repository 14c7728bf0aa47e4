# shellcheck shell=bash
# What the scripts of this folder share. Sourced; it moves to the root of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Built tools, the built Jaeger and the Wine prefix are kept here from one run to the next.
cache=${ALLOCTRACE_CACHE:-$HOME/.cache/alloctrace}
mkdir -p "$cache"

fail() {
  echo "!! ${0##*/}: $*" >&2
  exit 1
}

# say TEXT: what must not be overlooked; .ci/run repeats it in its summary.
say() {
  echo "!! $*" >&2
  [[ -z ${notes-} ]] || echo "!! $*" >>"$notes"
}

# need COMMAND PACKAGE: fails when the command is missing, saying how to get it.
need() {
  command -v "$1" >/dev/null || fail "$1 is missing: apt-get install $2, or run .ci/setup as root"
}

# retry COMMAND...: for what downloads; four tries, some seconds apart.
retry() {
  local delay
  for delay in 5 15 45; do
    "$@" && return
    echo "-- failed, again in $delay s: $*" >&2
    sleep "$delay"
  done
  "$@"
}

# run_386 prints what runs an i386 program: nothing where the kernel does, and otherwise the qemu that .ci/setup brings.
run_386() {
  local work
  work=$(mktemp -d)
  echo 'package main; func main() {}' >"$work/main.go"
  GOARCH=386 CGO_ENABLED=0 go build -o "$work/program" "$work/main.go"
  "$work/program" 2>/dev/null || echo "$cache/qemu-i386"
  rm -r "$work"
}
