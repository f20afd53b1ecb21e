#!/usr/bin/env bash
# Prints the path of a `qemu-system-x86_64` of version 10 or newer. Where the installed one is older, Debian's backport of it
# is unpacked beside it, into the cache: nothing is installed, and what is installed stays what it is.

set -euo pipefail -E
export LC_ALL=C
umask 022

readonly program=qemu-system-x86_64 least=10

usage() {
  cat <<'TEXT'
usage: qemu10.sh [--cache DIR]

Prints the path of a QEMU of version 10 or newer: the installed one, or Debian's backport of it, unpacked beside that.

  --cache DIR   where it is kept
                (default: $HOLDFAST_CACHE; for root /var/cache/holdfast, where QEMU's own user can read it;
                else $XDG_CACHE_HOME/holdfast, else ~/.cache/holdfast)
TEXT
}

die() { # CAUSE HINT
  printf 'error: cannot get QEMU %s\ncause: %s\nhint:  %s\n' "$least" "$1" "$2" >&2
  exit 1
}
trap 'die "line $LINENO of $0 failed: $BASH_COMMAND" "see the lines above; is there room on the disk?"' ERR

is_new() { # PROGRAM: whether it runs, and is of that version
  local major
  major=$("$1" --version 2>/dev/null | sed -n '1s/.* version \([0-9]*\)\..*/\1/p' || true)
  [[ $major ]] && ((major >= least))
}

apt() { # COMMAND ..: apt-get with sources, lists and a cache of its own; what it checks it checks here, too
  apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::Cache::pkgcache=pkgcache.bin \
    -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o APT::Update::Error-Mode=any \
    "$@" >"$work/log" 2>&1 && return
  die "apt-get $1: $(grep -m1 '^E:' "$work/log" || tail -1 "$work/log")" \
    "check the network and the sources of apt: $program comes from the package qemu-system-x86 of the suite $suite"
}

# Debian's own mirror, as apt is told to use it, and the suite of backports beside this machine's.
write_sources() {
  local codename keys=/usr/share/keyrings/debian-archive-keyring.gpg mirrors
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  suite=$codename-backports
  mirrors=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' "Release: $codename" 'Component: main' |
    sed -n 's/ Debian$//p' | sort -u)
  [[ $codename && $mirrors && -f $keys ]] ||
    die 'apt knows no mirror of Debian for this system' "install QEMU $least or newer by the means of this system"
  printf "deb [signed-by=$keys] ${mirrors%%$'\n'*} %s main\n" "$codename" "$suite" >"$work/sources.list"
}

# Debian's QEMU looks for what belongs to it where it would be installed, where another version's is: so a wrapper says
# where it is, and becomes QEMU itself. What was not downloaded, as it is installed, is found there.
unpack() {
  local deb libraries
  libraries=usr/lib/$(uname -m)-linux-gnu
  for deb in "$work"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$work/tree"; done
  mkdir "$work/tree/bin"
  cat >"$work/tree/bin/$program" <<FILE
#!/bin/sh
tree=$place
export QEMU_MODULE_DIR="\$tree/$libraries/qemu" LD_LIBRARY_PATH="\$tree/$libraries"
exec "\$tree/usr/bin/$program" -L "\$tree/usr/share/qemu" -L "\$tree/usr/share/seabios" -L "\$tree/usr/lib/ipxe/qemu" "\$@"
FILE
  chmod 755 "$work/tree" "$work/tree/bin/$program"
}

main() {
  local cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/holdfast installed
  ((EUID)) || cache=/var/cache/holdfast
  cache=${HOLDFAST_CACHE:-$cache}
  while (($#)); do
    case $1 in
      --cache) cache=${2:?"--cache needs a folder"} && shift ;;
      -h | --help) usage && exit ;;
      *) usage >&2 && exit 2 ;;
    esac
    shift
  done
  installed=$(command -v "$program" || true)
  if [[ $installed ]] && is_new "$installed"; then echo "$installed" && return; fi

  mkdir -p "$cache" || die "$cache cannot be written" 'give another folder with --cache DIR'
  cache=$(realpath "$cache")
  place=$cache/qemu$least
  if ! is_new "$place/bin/$program"; then
    { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
      die "the installed $program is older, or missing" "install QEMU $least or newer by the means of this system"
    exec 9>"$cache/.qemu$least.lock"
    flock 9 # one at a time; the others find it done
    if ! is_new "$place/bin/$program"; then fetch; fi
  fi
  echo "$place/bin/$program"
}

fetch() {
  work=$(mktemp -d "$cache/.qemu$least.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{lists,cache/archives}/partial "$work/tree"
  write_sources
  echo "qemu10: unpacking qemu-system-x86 of $suite into $place" >&2
  apt update
  apt install --download-only -y -t "$suite" qemu-system-x86
  unpack
  rm -rf "$place"
  mv -T "$work/tree" "$place"
  is_new "$place/bin/$program" ||
    die "what $suite has does not run here, or is older: $("$place/bin/$program" --version 2>&1 | head -1)" \
      "install QEMU $least or newer by the means of this system"
}

main "$@"
