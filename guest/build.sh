#!/usr/bin/env bash
# Builds the demo guest of Holdfast: a small Linux with PostgreSQL and the QEMU guest agent, from the
# packages of this machine's own Debian or Ubuntu. Nothing is installed here, nothing is mounted, and
# no service of this machine is touched: packages are unpacked into a folder that becomes an ext4 file.
# It is one file without siblings because it is also carried inside the holdfast program, which runs it
# as `bash -c TEXT`.

set -euo pipefail -E
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
umask 022

usage() {
  cat <<'TEXT'
usage: build.sh [--cache DIR] [--print-id] [--quiet]

Builds the PostgreSQL demo guest, or finds it already built, and prints its folder.

  --cache DIR   where packages and guests are kept
                (default: $HOLDFAST_CACHE; for root /var/cache/holdfast, where QEMU's own user can read it;
                else $XDG_CACHE_HOME/holdfast, else ~/.cache/holdfast)
  --print-id    print the name that the guest has or would get, and build nothing
  --quiet       no progress on the error output

DIR/guest/postgres-ID/ then holds: vmlinux  initrd.gz  base.raw  manifest
TEXT
}

readonly packages=(postgresql qemu-guest-agent busybox-static e2fsck-static nftables)
readonly kernels=(linux-image-amd64 linux-image-generic) # Debian's name, Ubuntu's name
# Of everything these packages pull in, what a guest needs that never installs anything.
readonly wanted='^(lib[^_]*|zlib1g|tzdata|postgresql-(client-)?[0-9]+|qemu-guest-agent|busybox-static|e2fsck-static|nftables|linux-(image|modules|modules-extra)-[0-9][^_]*)_'
readonly unwanted='^lib(llvm|z3-|perl|[^_]*-perl_|c-l10n|db5|semanage|sepol|gdbm|pam-modules|pam-runtime|audit-common|klibc|kmod|proc2|systemd-shared|sasl2-modules)'
readonly modules=(virtio_pci virtio_blk ext4 virtio_net virtio_console virtio_rng virtio_balloon
  pvpanic_pci pvpanic_mmio i6300esb overlay loop crc32c_generic nf_tables) # ext4 and nf_tables ask for crc32c by another name
readonly disk_size=2G postgres_id=999

# ---------------------------------------------------------------------------------- telling people

started=${EPOCHREALTIME/./}
say() {
  [[ $quiet ]] && return
  local tenths=$(((${EPOCHREALTIME/./} - started) / 100000))
  printf 'guest %4d.%ds  %s\n' $((tenths / 10)) $((tenths % 10)) "$1" >&2
}

die() { # WHAT CAUSE HINT
  [[ $work && -e $work/told ]] || printf 'error: %s\ncause: %s\nhint:  %s\n' "$1" "$2" "$3" >&2
  [[ -d $work ]] && : >"$work/told" # a failure in the background is told once
  exit 1
}

unforeseen() { # LINE COMMAND
  die 'cannot build the demo guest' "line $1 of $0 failed: $2" \
    "see the lines above; is there room on the disk? Removing $cache and building again is always safe while no VM runs"
}
trap 'unforeseen $LINENO "$BASH_COMMAND"' ERR

need() { # TOOL PACKAGE
  command -v "$1" >/dev/null || die "cannot build the demo guest" "the program $1 is missing" "apt-get install $2"
}

# --------------------------------------------------------------------------- which packages, which id

apt() { # COMMAND ..: apt-get as if nothing were installed, writing to the cache only
  local options=(-qq -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Install-Recommends=false
    -o APT::Update::Error-Mode=any -o Dir::State::status=/dev/null
    -o "Dir::Cache=$cache/apt" -o Dir::Cache::pkgcache=pkgcache.bin)
  if [[ $own_lists ]]; then options+=(-o "Dir::State::lists=$own_lists"); fi
  apt-get "${options[@]}" "$@" 2>"$cache/apt/log" && return
  # The first failure is the one to tell: what is tried after it often fails only because of it.
  trouble=${trouble:-"apt-get $1: $(grep -m1 '^E:' "$cache/apt/log" || tail -1 "$cache/apt/log")"}
  return 1
}

has_lists() { compgen -G "$1/*_Packages*" >/dev/null; } # FOLDER

# Decides between the package lists of the system and our own, which `refresh` makes where those do not do.
choose_lists() {
  local LISTS=
  eval "$(apt-config shell LISTS Dir::State::lists/d)"
  lists=$LISTS own_lists=
  if has_lists "$cache/apt/lists" && { [[ $cache/apt/lists -nt $LISTS ]] || ! has_lists "$LISTS"; }; then
    lists=$cache/apt/lists own_lists=$lists
  fi
}

refresh() {
  say 'fetching package lists'
  mkdir -p "$cache/apt/lists/partial"
  own_lists=$cache/apt/lists
  if apt update >/dev/null; then
    touch "$own_lists"
  else
    rm -rf "$own_lists"
    own_lists=
    return 1
  fi
}

# Asks apt for the newest packages: one line each, "FILE SIZE", in $files.
resolve() {
  local kernel
  for kernel in "${kernels[@]}"; do
    apt install --print-uris -y "${packages[@]}" "$kernel" >"$cache/apt/uris" || continue
    files=$(awk '{print $2, $3}' "$cache/apt/uris" | grep -E "$wanted" | grep -Ev "$unwanted" | sort)
    trouble=
    return
  done
  return 1
}

name_it() { id=$(printf '%s\n' "$script_hash" "$files" | sha256sum | head -c 12); }

# Sets $id: the hash of this script and of the packages it would use. As long as neither this script nor
# the lists change, it is remembered, so that a second call does not ask apt.
identify() {
  local key remembered
  choose_lists
  key=$({
    echo "$script_hash ${APT_CONFIG-}"
    stat -c '%n %s %Y' "$lists"/* /etc/apt/sources.list* /etc/apt/sources.list.d/* 2>/dev/null || true
  } | sha256sum | head -c 64)
  if [[ -f $cache/guest/.remembered ]]; then
    read -r remembered id <"$cache/guest/.remembered"
    [[ $remembered != "$key" ]] || return 0
  fi

  say 'asking apt for the newest PostgreSQL, guest agent and kernel'
  if ! resolve && ! { refresh && resolve; }; then
    fall_back
    return
  fi
  name_it
  printf '%s %s\n' "$key" "$id" >"$cache/guest/.remembered.$$"
  mv "$cache/guest/.remembered.$$" "$cache/guest/.remembered"
}

# Without package lists and without a network, the newest guest that this very script built will do.
fall_back() {
  local manifest
  manifest=$({ grep -ls "^script=$script_hash" "$cache"/guest/postgres-*/manifest || true; } | xargs -r ls -t | head -1)
  [[ $manifest ]] || die 'cannot find the packages of the demo guest' \
    "$trouble" "check the network and the sources of apt, try: apt-get update && apt-cache policy ${packages[*]}"
  say 'apt does not answer: using the guest that is there'
  id=$(sed -n 's/^id=//p' "$manifest")
}

download() {
  local file size name version missing=() total=0
  mkdir -p "$cache/debs" "$work/debs"
  while read -r file size; do
    [[ -f $cache/debs/$file ]] && continue
    name=${file%%_*} version=${file#*_} version=${version%_*}
    missing+=("$name=${version//%3a/:}")
    total=$((total + size))
  done <<<"$files"
  [[ $files ]] || return 1
  [[ ${missing[*]} ]] || return 0
  say "downloading ${#missing[@]} packages, $((total / 1000000)) MB"
  cd "$work/debs" # where apt-get puts them
  apt download "${missing[@]}" >/dev/null || return 1
  mv "$work"/debs/*.deb "$cache/debs/" # apt has checked them: what is in debs/ is whole
}

# ------------------------------------------------------------------------------ kernel and initramfs

unpack() { # PACKAGE-FILE FOLDER [TAR-OPTION ..]
  dpkg-deb --fsys-tarfile "$1" | tar -x --no-same-owner --keep-directory-symlink -C "$2" "${@:3}"
}

decompressed() { # FILE: told by its first bytes
  case $(head -c 4 "$1" | od -An -tx1 | tr -d ' ') in
    1f8b*) gzip -dc "$1" ;;
    fd377a58) xz -dc "$1" ;;
    28b52ffd) need zstd zstd && zstd -dcq "$1" ;;
    02214c18) need lz4 lz4 && lz4 -dcq "$1" ;;
    *) cat "$1" ;;
  esac
}

number() { od -An -j "$2" -N "$3" -t "u$3" "$1" | tr -d ' '; } # FILE OFFSET BYTES

# Takes the ELF kernel out of a bzImage, as the x86 boot protocol describes it. QEMU starts it directly
# (PVH), which saves the guest from unpacking itself: a good half second under emulation.
extract_kernel() { # BZIMAGE OUT
  local start length
  start=$((($(number "$1" 0x1f1 1) + 1) * 512 + $(number "$1" 0x248 4)))
  length=$(number "$1" 0x24c 4)
  tail -c +$((start + 1)) "$1" 2>/dev/null | head -c "$length" >"$2.packed" || true # tail minds the closed pipe
  # All but gzip are followed by the unpacked size, which is not theirs.
  [[ $(head -c 2 "$2.packed" | od -An -tx1) == ' 1f 8b' ]] || truncate -s -4 "$2.packed"
  decompressed "$2.packed" >"$2"
  [[ $(head -c 4 "$2" | tail -c 3) == ELF ]] ||
    die 'cannot unpack the kernel of the demo guest' "${1##*/} is packed in a way this script does not know" \
      'please report the name of this kernel package'
  rm "$2.packed"
}

# Puts a module into the initramfs behind those it depends on. A name that is not found is built in.
add_module() { # NAME
  local file dep
  [[ " $added " == *" $1 "* ]] && return
  added+=" $1"
  file=$(grep -m1 -E "/${1//_/[-_]}\.ko(\.[a-z0-9]+)?$" "$boot/modules") || return 0
  decompressed "$file" >"$boot/initramfs/modules/$1.ko"
  for dep in $(tr '\0' '\n' <"$boot/initramfs/modules/$1.ko" | sed -n 's/^depends=//p' | tr ',-' ' _'); do
    add_module "$dep"
  done
  echo "/modules/$1.ko" >>"$boot/initramfs/modules/order"
}

build_boot() {
  local name added='' initramfs=$boot/initramfs
  mkdir -p "$boot/kernel" "$initramfs"/{bin,dev,proc,root,modules}
  while read -r name _; do
    # Most modules of a kernel are for hardware that no virtual machine has: not worth writing to disk.
    unpack "$cache/debs/$name" "$boot/kernel" --exclude='*/usr/share/*' --exclude='*/System.map*' \
      --exclude='*/kernel/sound/*' --exclude='*/kernel/drivers/[!bcmnvw]*' --exclude='*/kernel/drivers/media/*' \
      --exclude='*/kernel/drivers/net/*/*' --exclude='*/kernel/net/[!cn]*'
  done < <(grep -E '^(linux|busybox|e2fsck)-' <<<"$files")
  find "$boot/kernel" -name '*.ko*' >"$boot/modules"
  extract_kernel "$(find "$boot/kernel/boot" -name 'vmlinuz-*')" "$work/out/vmlinux"

  : >"$initramfs/modules/order"
  for name in "${modules[@]}"; do add_module "$name"; done
  find "$boot/kernel" -type f \( -name busybox -o -name e2fsck.static \) -path '*bin/*' -exec cp -t "$initramfs/bin" {} +
  for name in sh cat insmod mount od switch_root umount usleep; do ln -s busybox "$initramfs/bin/$name"; done
  initramfs_init >"$initramfs/init"
  chmod 755 "$initramfs/init"
  (cd "$initramfs" && find . | bin/busybox cpio -o -H newc -R 0:0 2>/dev/null | gzip -6 >"$work/out/initrd.gz")
  say 'kernel and initramfs are ready'
}

initramfs_init() {
  cat <<'FILE'
#!/bin/busybox sh
# Loads the drivers, checks the root file system if it is marked faulty, and starts the guest from it.
# There is no shell to fall back to: what cannot boot panics, so that whoever supervises the guest sees it.
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
exec >/dev/console 2>&1
echo 1 >/proc/sys/kernel/panic_on_oops
while read -r module; do insmod "$module"; done </modules/order

root=/dev/vda
for word in $(cat /proc/cmdline); do
  case $word in root=*) root=${word#root=} ;; esac
done

give_up() {
  echo "holdfast-guest: cannot mount the root file system: $1"
  exit 1 # the end of process 1 is a kernel panic
}

# Bit 1 of the state, two bytes at 1082 (ext4's s_state): the kernel has found errors.
faulty() { [ $(($(od -An -j 1082 -N 1 -t u1 $root) & 2)) -ne 0 ]; }

repair() {
  echo "holdfast-guest: the root file system is marked faulty, checking it"
  e2fsck.static -p $root
  [ $? -lt 4 ] || give_up "$root needs a repair by hand"
}

tries=200
until [ -b $root ]; do
  [ $((tries -= 1)) -gt 0 ] || give_up "there is no $root"
  usleep 50000
done
if faulty; then repair; fi
mount -t ext4 -o rw $root /root || give_up "$root is not a sound ext4"
if faulty; then # the mount has learned it from the journal
  umount /root
  repair
  mount -t ext4 -o rw $root /root || give_up "$root is not a sound ext4"
fi
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
FILE
}

# --------------------------------------------------------------------------------- root file system

put() { # MODE PATH: the text on the standard input becomes a file of the guest
  mkdir -p "$root${2%/*}"
  rm -f "$root$2" # it may be a link to busybox
  cat >"$root$2"
  chmod "$1" "$root$2"
}

build_root() {
  local name applet
  say 'unpacking'
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
  while read -r name _; do
    unpack "$cache/debs/$name" "$root" --exclude='./usr/share/'{doc,man,locale,lintian,bug,postgresql-common}'*' \
      --exclude='*/gconv' --exclude='*/llvmjit*' --exclude='*/bitcode' --exclude='*/zoneinfo/'{right,posix} --exclude='*lib/systemd'
  done < <(grep -vE '^(linux|e2fsck)-' <<<"$files")
  mkdir -p "$root"/{dev/shm,proc,sys,run/postgresql,tmp,root,etc,var/log,var/tmp}
  chmod 1777 "$root/tmp" "$root/var/tmp"
  for applet in $("$root/bin/busybox" --list-full); do
    [[ -e $root/$applet ]] || ln -s /bin/busybox "$root/$applet"
  done
  ldconfig -r "$root"
  check_libraries
  system_files
  postgresql_files
  agent_files
  say 'creating the databases'
  make_databases
}

# Fails if `wanted` and `unwanted` do not fit this release: better here than in the guest.
check_libraries() {
  local missing
  missing=$(for program in "$root"/usr/lib/postgresql/*/bin/{postgres,psql} "$root"/usr/sbin/{qemu-ga,nft}; do
    chroot "$root" /lib64/ld-linux-x86-64.so.2 --list "${program#"$root"}" 2>&1
  done | awk '/not found|cannot open/ {print $1}' | sort -u | xargs)
  [[ ! $missing ]] || die 'cannot build the demo guest' "a library was not unpacked: $missing" \
    "please report it with the output of: grep PRETTY /etc/os-release"
}

system_files() {
  put 644 /etc/passwd <<FILE
root:x:0:0:root:/root:/bin/sh
postgres:x:$postgres_id:$postgres_id::/var/lib/postgresql:/bin/sh
nobody:x:65534:65534::/nonexistent:/bin/false
FILE
  printf 'root:x:0:\npostgres:x:%s:\nnogroup:x:65534:\n' $postgres_id | put 644 /etc/group
  printf 'passwd: files\ngroup: files\nhosts: files\n' | put 644 /etc/nsswitch.conf
  echo '127.0.0.1 localhost holdfast-guest' | put 644 /etc/hosts
  echo holdfast-guest | put 644 /etc/hostname
  put 644 /etc/os-release <<FILE
ID=holdfast-guest
NAME="Holdfast demo guest"
VERSION_ID=$id
PRETTY_NAME="Holdfast demo guest $id"
FILE
  put 644 /etc/inittab <<'FILE'
::sysinit:/etc/boot
::once:/etc/init.d/postgresql start
::respawn:/etc/agent
::respawn:/etc/watchdog
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/stop
FILE
  put 755 /etc/boot <<'FILE'
#!/bin/sh
# Everything between the kernel and the services.
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/shm /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /run/postgresql /run/qemu
chown postgres:postgres /run/postgresql
hostname -F /etc/hostname
echo 1 >/proc/sys/kernel/sysrq
dmesg -n 4 # the console shows errors and worse

# The kernel command line may say hf.ip=ADDRESS/BITS and hf.gw=GATEWAY (empty: none).
address=10.0.2.15/24 gateway=10.0.2.2
for word in $(cat /proc/cmdline); do
  case $word in
    hf.ip=*) address=${word#*=} ;;
    hf.gw=*) gateway=${word#*=} ;;
  esac
done
ip link set lo up
ip link set eth0 up
ip addr add "$address" dev eth0
[ -z "$gateway" ] || ip route add default via "$gateway"

read -r up _ </proc/uptime
echo "holdfast-guest: ready, up $up s" >/dev/console
FILE
  put 755 /etc/stop <<'FILE'
#!/bin/sh
# Before a power-off or a reboot: the database in order, at most five seconds, then the disk.
echo "holdfast-guest: stopping" >/dev/console
timeout 10 /etc/init.d/postgresql stop
sync
mount -o remount,ro /
FILE
  put 755 /etc/watchdog <<'FILE'
#!/bin/sh
# Feeds the hardware watchdog: ten seconds without it, and the hypervisor is told.
[ -c /dev/watchdog ] || exec sleep 3600
exec watchdog -F -T 10 -t 2 /dev/watchdog
FILE
  put 755 /sbin/shutdown <<'FILE'
#!/bin/sh
# What the guest agent calls: power off, or with -r reboot, or with -H halt.
case " $* " in
  *" -r "*) kill -TERM 1 ;;
  *" -H "*) kill -USR1 1 ;;
  *) kill -USR2 1 ;;
esac
FILE
  put 755 /usr/sbin/service <<'FILE'
#!/bin/sh
# service NAME ACTION
[ -x "/etc/init.d/$1" ] || { echo "$1: unrecognized service" >&2; exit 1; }
exec "/etc/init.d/$1" "$2"
FILE
  put 755 /usr/bin/systemctl <<'FILE'
#!/bin/sh
# Not systemd: a shim, so that the usual commands for a service work here too.
#   systemctl start|stop|restart|status|is-active NAME[.service]
quiet=
case $1 in -q | --quiet) quiet=1; shift ;; esac
name=${2%.service}
case $1 in
  start | stop | restart | status) exec service "$name" "$1" ;;
  is-active)
    if service "$name" status >/dev/null 2>&1; then state=active code=0; else state=inactive code=3; fi
    [ "$quiet" ] || echo $state
    exit $code
    ;;
esac
echo "systemctl: only start, stop, restart, status and is-active exist here" >&2
exit 1
FILE
}

agent_files() {
  put 755 /etc/agent <<'FILE'
#!/bin/sh
# The QEMU guest agent, on the virtio port of its name.
for port in /sys/class/virtio-ports/*; do
  read -r name <"$port/name" 2>/dev/null || continue
  [ "$name" = org.qemu.guest_agent.0 ] || continue
  exec qemu-ga -m virtio-serial -p "/dev/${port##*/}" -t /run/qemu -f /run/qemu/agent.pid
done
exec sleep 5
FILE
}

postgresql_files() {
  local tool
  for tool in "$root"/usr/lib/postgresql/*/bin/*; do
    [[ -e $root/usr/bin/${tool##*/} ]] || ln -s "..${tool#"$root"/usr}" "$root/usr/bin/"
  done
  put 755 /etc/init.d/postgresql <<'FILE'
#!/bin/sh
# PostgreSQL as a service. Nothing else starts it, so that a supervisor has something to do.
#   /etc/init.d/postgresql start|stop|restart|status
# A restart always gets through: what does not end by itself in a second is killed, whether it is
# busy, hung, stopped by a signal, or left over from a postmaster that was killed.
# Functions answer in the variable of their name: a subshell costs, and a restart is to be quick.

for data in /var/lib/postgresql/*/main; do :; done
lock=/run/postgresql.lock

fail() {
  echo "postgresql: $1" >&2
  return 1
}

now() { # hundredths of a second since boot
  read -r now _ </proc/uptime
  now=${now%.*}${now#*.}
}

state() { # PROCESS: one letter of proc(5), Z where there is none any more
  read -r _ _ state _ 2>/dev/null <"/proc/$1/stat" || state=Z
}

living() { # its processes, without those that are dead and not yet collected by init
  living=
  for process in $(pidof postgres); do
    state "$process"
    [ $state = Z ] || living="$living $process"
  done
  [ "$living" ]
}

postmaster() { # its process, and the state of it, if it lives
  read -r postmaster 2>/dev/null <$data/postmaster.pid || return
  read -r name 2>/dev/null <"/proc/$postmaster/comm" && [ "$name" = postgres ] || return
  state "$postmaster"
  [ $state != Z ]
}

stop() { # HUNDREDTHS of a second that it gets to end by itself
  now
  patience=$((now + $1))
  # The state T is: stopped by a signal.
  if postmaster && [ $state != T ] && kill -INT "$postmaster"; then
    while living && now && [ $now -lt $patience ]; do usleep 30000; done
  fi
  patience=$((now + 300))
  while living; do
    now
    [ $now -lt $patience ] || fail "cannot be killed" || return
    kill -9 $living 2>/dev/null
    usleep 10000
  done
}

start() {
  postmaster && [ $state != T ] && return
  stop 0 || return
  rm -f $data/postmaster.pid /run/postgresql/.s.* /dev/shm/PostgreSQL.* # nobody alive uses them
  (
    echo -900 >/proc/self/oom_score_adj # the postmaster is not what to kill; its children are at 0 again
    export PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj PG_OOM_ADJUST_VALUE=0
    exec setsid su -s /bin/sh postgres -c "exec postgres -D $data"
  ) </dev/null >/dev/console 2>&1 &
  now
  patience=$((now + 1000))
  until grep -q '^ready' $data/postmaster.pid 2>/dev/null; do
    now
    kill -0 $! 2>/dev/null || fail "did not start, see the console" || return
    [ $now -lt $patience ] || fail "not ready after ten seconds" || return
    usleep 30000
  done
}

status() {
  if ! postmaster; then
    echo "postgresql: not running"
    return 3
  elif [ $state = T ]; then
    echo "postgresql: stopped by a signal (process $postmaster)"
    return 4
  fi
  echo "postgresql: running (process $postmaster)"
}

one_at_a_time() { # the lock is a link to the process id of its holder
  now
  patience=$((now + 1500))
  until ln -s $$ $lock 2>/dev/null; do
    now
    [ $now -lt $patience ] || fail "another start or stop does not come to its end" || exit
    kill -0 "$(readlink $lock)" 2>/dev/null || rm -f $lock
    usleep 50000
  done
  trap 'rm -f $lock' EXIT
  trap 'exit 1' HUP INT TERM
}

case $1 in
  start) one_at_a_time; start ;;
  stop) one_at_a_time; stop 500 ;;
  restart) one_at_a_time; stop 100 && start ;;
  status) status ;;
  *) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
FILE
}

# Runs a program in the guest's tree as its postgres user, who is another user than the tree's owner.
as_postgres() {
  if [[ $unshared ]]; then
    unshare --user --map-user=$postgres_id --map-group=$postgres_id --keep-caps chroot "$root" "$@"
  else
    chroot --userspec=$postgres_id:$postgres_id "$root" "$@"
  fi
}

make_databases() {
  local bin version data
  bin=$(cd "$root" && echo usr/lib/postgresql/*/bin) version=${bin#usr/lib/postgresql/} version=${version%/bin}
  data=/var/lib/postgresql/$version/main
  mkdir -p "$root$data"
  [[ $unshared ]] || chown -R $postgres_id:$postgres_id "$root/var/lib/postgresql"
  # Plain files do for devices: nothing needs to be mounted, so nothing needs to be unmounted.
  : >"$root/dev/null"
  chmod 666 "$root/dev/null"
  chmod 1777 "$root/dev/shm"
  as_postgres "/$bin/initdb" -D "$data" -U postgres --no-locale -E UTF8 -A trust --data-checksums -N >"$work/log" 2>&1 ||
    die 'cannot create the database cluster' "initdb: $(tail -1 "$work/log")" 'please report the PostgreSQL version'
  cat >>"$root$data/postgresql.conf" <<'FILE'

# Holdfast's demo guest
listen_addresses = '*'
max_connections = 50
shared_buffers = 64MB
jit = off
unix_socket_directories = '/run/postgresql'
log_destination = stderr
log_line_prefix = 'pg %m [%p] '
log_checkpoints = on
log_connections = off
max_wal_size = 256MB
recovery_init_sync_method = syncfs # after a crash: one call instead of one per file
FILE
  # Whoever is in the guest's own network is trusted: under QEMU's user network, that is its host.
  echo 'host all all samenet trust' >>"$root$data/pg_hba.conf"
  single postgres <<'SQL'
CREATE ROLE orders LOGIN;
CREATE ROLE probe LOGIN;
CREATE DATABASE orders OWNER orders;
SQL
  single orders <<'SQL'
CREATE TABLE holdfast_probe (id int PRIMARY KEY, at timestamptz);
GRANT SELECT, INSERT, UPDATE, DELETE ON holdfast_probe TO probe;
SQL
  rm "$root/dev/null"
}

single() { # DATABASE: runs the statements on the standard input, one a line
  as_postgres "/$bin/postgres" --single -D "$data" -c log_checkpoints=off "$1" >"$work/log" 2>&1
  ! grep -qE 'ERROR|FATAL|PANIC' "$work/log" ||
    die 'cannot create the databases' "$(grep -m1 -E 'ERROR|FATAL|PANIC' "$work/log")" 'please report the PostgreSQL version'
}

make_disk() {
  say 'writing the disk'
  truncate -s $disk_size "$work/out/base.raw"
  # The number of inodes is small and their tables are written now, so that a fresh guest leaves its disk alone.
  mkfs.ext4 -q -L guest -m 1 -i 65536 -e remount-ro -E lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0 \
    -d "$root" "$work/out/base.raw"
  # Without root, every file here has one owner: give the database's files to theirs.
  find "$root/var/lib/postgresql" -printf "sif /var/lib/postgresql/%P uid $postgres_id\nsif /var/lib/postgresql/%P gid $postgres_id\n" |
    debugfs -w -f - "$work/out/base.raw" >"$work/log" 2>&1
  e2fsck -fn "$work/out/base.raw" >"$work/log" 2>&1
}

# ------------------------------------------------------------------------------------------- the flow

version_of() { # PACKAGE-PATTERN
  grep -m1 -E "^$1_" <<<"$files" | cut -d_ -f2 | sed 's/%3a/:/'
}

write_manifest() {
  cat >"$work/out/manifest" <<FILE
id=$id
built=$(date -u +%Y-%m-%dT%H:%M:%SZ)
kernel=$(version_of 'linux-image-[^_]*')
postgres=$(version_of 'postgresql-[0-9]+')
agent=$(version_of qemu-guest-agent)
cmdline=console=ttyS0 quiet root=/dev/vda rw panic=-1
script=$script_hash
FILE
}

build() {
  work=$(mktemp -d "$cache/guest/.build.XXXXXX") boot=$work/boot root=$work/root
  trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
  mkdir -p "$boot" "$root" "$work/out"
  [[ $files ]] || resolve || true # what fails here fails in `download`, which says so
  download || { refresh && resolve && download; } ||
    die 'cannot download the packages of the demo guest' "$trouble" \
      'check the network and the proxy of apt, then run this again: what is already downloaded is kept'
  name_it # newer lists may have named newer packages
  result=$cache/guest/postgres-$id
  [[ ! -f $result/manifest ]] || return 0
  build_boot &
  build_root
  wait $!
  make_disk
  write_manifest
  chmod 755 "$work/out"
  chmod 444 "$work"/out/*
  mv -T "$work/out" "$result"
  say "done: $(du -h "$result/base.raw" | cut -f1) on disk"
}

read_itself() { # sets $script and its hash
  if [[ -v BASH_EXECUTION_STRING ]]; then
    script=${BASH_EXECUTION_STRING%$'\n'}
  elif [[ -f $0 ]]; then
    script=$(<"$0")
  else
    die 'cannot build the demo guest' 'this script cannot read its own text' 'run it as: bash build.sh'
  fi
  script_hash=$(sha256sum <<<"$script" | head -c 12)
}

# Without root, a user namespace with one user is enough: it lets chroot work, and root own the files.
without_root() {
  ((EUID != 0)) || return 0
  unshare --user --map-root-user chroot / true 2>/dev/null ||
    die 'cannot build the demo guest without root' 'this system does not let users make user namespaces (needed for chroot)' \
      "build it once as root, for this cache: sudo guest/build.sh --cache $cache"
  exec unshare --user --map-root-user env HOLDFAST_GUEST_UNSHARED=1 \
    bash -c "$script" "$0" --cache "$cache" ${quiet:+--quiet}
}

check_machine() {
  { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
    die 'cannot build the demo guest' 'it is made of Debian packages, and this machine has no apt-get and dpkg-deb' \
      'build it on Debian or Ubuntu and copy the folder here, or use an image of your own (see guest/README.md)'
  [[ $(dpkg --print-architecture) == amd64 ]] ||
    die 'cannot build the demo guest' "its kernel is for amd64, and this machine is $(dpkg --print-architecture)" \
      'use an image of your own (see guest/README.md)'
  need mkfs.ext4 e2fsprogs
  need debugfs e2fsprogs
  need xz xz-utils
  need unshare util-linux
  need flock util-linux
  need ldconfig libc-bin
}

# One builder at a time; the others wait and find the guest done.
lock() {
  exec 9>"$cache/guest/.lock"
  flock -n 9 || { say 'waiting for another build of the guest' && flock 9; }
  rm -rf "$cache"/guest/.build.* # what a killed builder left
}

main() {
  work='' files='' trouble='' quiet='' id_only='' unshared=${HOLDFAST_GUEST_UNSHARED-}
  cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/holdfast
  ((EUID)) || cache=/var/cache/holdfast
  cache=${HOLDFAST_CACHE:-$cache}
  while (($#)); do
    case $1 in
      --cache) cache=${2:?"--cache needs a folder"} && shift ;;
      --print-id) id_only=1 ;;
      --quiet) quiet=1 ;;
      -h | --help) usage && exit ;;
      *) usage >&2 && exit 2 ;;
    esac
    shift
  done
  read_itself
  check_machine
  mkdir -p "$cache/apt/archives/partial" "$cache/guest" ||
    die 'cannot build the demo guest' "$cache cannot be written" 'give another folder with --cache DIR'
  cache=$(realpath "$cache")

  identify
  if [[ $id_only ]]; then echo "postgres-$id" && return; fi
  result=$cache/guest/postgres-$id
  if [[ ! -f $result/manifest ]]; then
    without_root
    lock
    [[ -f $result/manifest ]] || build
  fi
  echo "$result"
}

main "$@"
