#!/usr/bin/env bash
# Installs what building and the demo (with --tests: and the tests) need and this machine lacks. As root it asks nothing;
# otherwise it says what is missing and the one command that installs it.

set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
tests=${1-} # --tests or nothing

# What must be there (a command or a file), the package that brings it, and why.
needs() {
  cat <<'TABLE'
qemu-system-x86_64                  qemu-system-x86  runs the virtual machines
qemu-img                            qemu-utils       makes and checks their disks
mkfs.ext4                           e2fsprogs        makes the file system of the demo guest
xz                                  xz-utils         unpacks the kernel of the demo guest
cc                                  gcc              links Rust programs
/etc/ssl/certs/ca-certificates.crt  ca-certificates  lets cargo fetch its crates
TABLE
  if [[ $tests ]]; then
    cat <<'TABLE'
ip                                  iproute2             makes the network of a guest on a tap interface
mmdebstrap                          mmdebstrap           makes a guest with systemd, for tests with a real journal
fusermount3                         fuse3                mounts a restore point for a user who is not root
nft                                 nftables             loses packets of that network, for the benchmark matrix
redis-server                        redis-server         a real server for the Redis probe's tests
/usr/sbin/mariadbd                  mariadb-server-core  a real server for the MySQL probe's tests
/usr/bin/mariadb                    mariadb-client-core  makes that server's first databases
TABLE
  fi
  if grep -qs ^ID=ubuntu /etc/os-release; then
    echo 'zstd zstd unpacks the kernel of the demo guest'
  fi
}

# Prints the packages that are missing, and on the error output why they are needed.
missing() {
  local thing package why
  while read -r thing package why; do
    command -v "$thing" >/dev/null || [[ -f $thing ]] && continue
    printf '  %-16s %s\n' "$package" "$why" >&2
    echo "$package"
  done < <(needs)
}

install() {
  local quietly=(-y -qq --no-install-recommends -o Dpkg::Use-Pty=0)
  DEBIAN_FRONTEND=noninteractive apt-get install "${quietly[@]}" "$@" >&2 && return
  echo 'setup: trying again with fresh package lists' >&2
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install "${quietly[@]}" "$@" >&2
}

if ! command -v cargo >/dev/null && [[ ! ${SUDO_USER-} ]]; then # sudo hides the user's own programs
  echo 'setup: the Rust toolchain is missing; install it with rustup, or from the packages of your system' >&2
  exit 1
fi

packages=$(missing)
if [[ ! $packages ]]; then exit 0; fi
echo 'setup: the packages above are missing' >&2

if ! command -v apt-get >/dev/null; then
  echo 'setup: this is neither Debian nor Ubuntu: install what they contain by the means of this system' >&2
  exit 1
fi
if ((EUID != 0)); then
  echo "setup: to install them, type: sudo $0 ${tests}" >&2
  exit 1
fi

# QEMU goes first and alone: where two versions are on offer, apt refuses it together with a qemu-utils
# of the other one, and may remove that; so what is missing is looked up again afterwards.
if grep -qx qemu-system-x86 <<<"$packages"; then
  install qemu-system-x86
  packages=$(missing 2>/dev/null)
fi
if [[ $packages ]]; then
  mapfile -t packages <<<"$packages"
  install "${packages[@]}"
fi

still=$(missing)
if [[ $still ]]; then
  echo 'setup: the packages above did not bring what is needed' >&2
  exit 1
fi
echo 'setup: done' >&2
