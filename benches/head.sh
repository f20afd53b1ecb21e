# What the measures have in common: how they are called, what they need, where they write. To be sourced before anything else is done.

root=$(cd "$(dirname "$0")/.." && pwd)

usage() { # says how the script is called, and ends it
  sed -n 's/^# Usage: /usage: /p' "$0" >&2
  exit 2
}
options() { # ARGUMENT...: `runs`, `json` and `work`, of --runs N, --json FILE and --work FOLDER
  runs=3 json='' work=''
  while (($#)); do
    case $1 in
      --runs) runs=${2-} && shift 2 ;;
      --json) json=$(realpath -m "${2-}") && shift 2 ;;
      --work) work=$(realpath -m "${2-}") && shift 2 ;;
      *) usage ;;
    esac
  done
  [[ $runs =~ ^[1-9][0-9]*$ ]] || usage
}
needs() { # PACKAGE:PROGRAM...: ends where one of them is not there
  local each missing=''
  for each; do command -v "${each#*:}" >/dev/null || missing+=" ${each%%:*}"; done
  [[ $missing ]] || return 0
  echo "missing Debian packages: apt-get install$missing" >&2
  exit 1
}
output() { # [FOLDER]: `work`, which stays if it is named
  if (($#)); then
    mkdir -p "$1"
    work=$(cd "$1" && pwd)
  else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
  fi
}
build() { # WHAT...: goes to the root of the repository; `program` is ours as it is released, `built` the folder of what was built
  cd "$root"
  cargo build --quiet --release "$@"
  built=$(cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4)/release
  program=$built/holdfast
}
now() { # milliseconds
  echo $((${EPOCHREALTIME/./} / 1000))
}
sample() { # NAME VALUE: into a file in the folder of all that is written
  echo "$1 $2" >>"$work/samples"
}
