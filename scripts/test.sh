#!/usr/bin/env bash
# Runs every check and every test, and ends with one line that sums them up. Fails if anything failed.

set -uo pipefail
cd "$(dirname "$0")/.." || exit
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0

check() { # COMMAND ..: counts as one result
  echo "== $*"
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

check cargo fmt --all --check
check cargo clippy --workspace --all-targets -- -D warnings

echo '== cargo test --workspace'
cargo test --workspace --no-fail-fast 2>&1 | tee "$log"
tests=${PIPESTATUS[0]}
read -r good bad < <(awk '/^test result:/ {good += $4; bad += $6} END {print good + 0, bad + 0}' "$log")
if ((tests != 0 && bad == 0)); then bad=1; fi # it did not build, or a test program died

passed=$((passed + good)) failed=$((failed + bad))

# What failed, once more and in short, where it need not be looked for: each with the first lines of what it printed.
awk -v most=40 '
  /^---- .* stdout ----$/ {left = most; print ""}
  /^(stack backtrace:|failures:)$/ {left = 0}
  left > 0 && NF {print; left--}
' "$log"

echo
echo "$passed passed, $failed failed"
((failed == 0))
