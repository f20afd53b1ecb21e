#!/usr/bin/env bash
# Builds a guest with systemd for the tests: a plain Debian or Ubuntu with its journal, rsyslog, the QEMU guest agent and
# PostgreSQL as the distribution ships them. The kernel is that of the demo guest (build.sh). Nothing is installed
# here; as root only, because packages run their own scripts inside the tree that they are unpacked into.

set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
umask 022

readonly packages=systemd-sysv,udev,dbus,qemu-guest-agent,rsyslog,iproute2,postgresql
readonly disk_size=3G

usage() {
  cat <<'TEXT'
usage: systemd.sh [--cache DIR] [--quiet]

Builds the guest with systemd, or finds it already built, and prints its folder. --cache and --quiet as for build.sh.

DIR/guest/systemd-ID/ then holds: vmlinux  initrd.gz  base.raw
TEXT
}

die() { # CAUSE HINT
  printf 'error: cannot build the guest with systemd\ncause: %s\nhint:  %s\n' "$1" "$2" >&2
  exit 1
}

say() { [[ $quiet ]] || printf 'guest %4d s  %s\n' $SECONDS "$1" >&2; }

check_machine() {
  command -v mmdebstrap >/dev/null || die 'the program mmdebstrap is missing' 'apt-get install mmdebstrap'
  command -v mkfs.ext4 >/dev/null || die 'the program mkfs.ext4 is missing' 'apt-get install e2fsprogs'
  ((EUID == 0)) || die 'it is not run by root' "build it once as root: sudo $0"
}

# A tree with the distribution of this machine, from the sources of this machine.
make_tree() {
  local release without=() sources=() folder file
  release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
  [[ $release ]] || die 'this system does not say which release it is' 'build it on Debian or Ubuntu'
  for folder in man doc locale info; do without+=(--dpkgopt="path-exclude=/usr/share/$folder/*"); done
  say "unpacking $release with systemd and PostgreSQL"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
    [[ ! -s $file ]] || sources+=("$file")
  done
  mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Apt::Install-Recommends "false"' "${without[@]}" \
    --include="$packages" "$release" "$root" "${sources[@]}" 2>"$work/log" ||
    die "mmdebstrap: $(grep -m1 '^E:' "$work/log" || tail -1 "$work/log")" 'check the network and the sources of apt'
}

put() { # PATH: the text on the standard input becomes a file of the guest
  mkdir -p "$root${1%/*}"
  cat >"$root$1"
}

settle_in() {
  echo holdfast-systemd >"$root/etc/hostname"
  echo '/dev/vda / ext4 defaults,errors=remount-ro 0 0' >"$root/etc/fstab"
  mkdir -p "$root/var/log/journal" # so that the journal outlives a reboot
  put /etc/systemd/network/10-eth0.network <<'FILE'
[Match]
Name=eth0 en*
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
FILE
  put /etc/systemd/system.conf.d/watchdog.conf <<'FILE'
[Manager]
RuntimeWatchdogSec=20
FILE
  chroot "$root" systemctl --quiet enable systemd-networkd qemu-guest-agent
  chroot "$root" systemctl --quiet mask systemd-timesyncd e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer e2scrub_all.timer logrotate.timer
  postgresql
}

postgresql() {
  local settings
  settings=$(cd "$root" && echo etc/postgresql/*/main)
  put "/$settings/conf.d/guest.conf" <<'FILE'
listen_addresses = '*'
shared_buffers = 64MB
jit = off
FILE
  echo 'host all all samenet trust' >>"$root/$settings/pg_hba.conf"
  local version=${settings#etc/postgresql/} sql='CREATE ROLE orders LOGIN; CREATE DATABASE orders OWNER orders;'
  version=${version%/main}
  mkdir -p "$root/dev/shm" && chmod 1777 "$root/dev/shm" # PostgreSQL asks for it
  chroot "$root" su postgres -c "/usr/lib/postgresql/$version/bin/postgres --single -D /var/lib/postgresql/$version/main \
    -c config_file=/$settings/postgresql.conf postgres" <<<"${sql//; /;$'\n'}" >"$work/log" 2>&1 ||
    die "PostgreSQL: $(tail -1 "$work/log")" 'please report it'
  ! grep -qE 'ERROR|FATAL|PANIC' "$work/log" || die "$(grep -m1 -E 'ERROR|FATAL|PANIC' "$work/log")" 'please report it'
}

make_disk() {
  say 'writing the disk'
  truncate -s "$disk_size" "$work/out/base.raw"
  mkfs.ext4 -q -L systemd -m 1 -E lazy_itable_init=0,lazy_journal_init=1 -d "$root" "$work/out/base.raw"
}

main() {
  quiet='' cache=${HOLDFAST_CACHE:-/var/cache/holdfast}
  while (($#)); do
    case $1 in
      --cache) cache=${2:?"--cache needs a folder"} && shift ;;
      --quiet) quiet=1 ;;
      -h | --help) usage && exit ;;
      *) usage >&2 && exit 2 ;;
    esac
    shift
  done
  local demo id
  demo=$("$(dirname "$0")/build.sh" --cache "$cache" ${quiet:+--quiet})
  id=$({ cat "$0" && basename "$demo"; } | sha256sum | head -c 12)
  result=$(realpath "$cache")/guest/systemd-$id
  if [[ ! -d $result ]]; then
    check_machine
    exec 9>"$cache/guest/.systemd-lock" # one builder at a time; the others find the guest done
    flock 9
    [[ -d $result ]] || build "$demo"
  fi
  echo "$result"
}

build() { # DEMO GUEST
  rm -rf "$cache"/guest/.systemd.* # what a killed builder left
  work=$(mktemp -d "$cache/guest/.systemd.XXXXXX") root=$work/root
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/out"
  make_tree
  settle_in
  make_disk
  ln "$1"/{vmlinux,initrd.gz} "$work/out/"
  chmod 755 "$work/out"
  chmod 444 "$work"/out/*
  mv -T "$work/out" "$result"
  say "done: $(du -h "$result/base.raw" | cut -f1) on disk"
}

main "$@"
