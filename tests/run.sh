#!/bin/bash
# Builds once, runs every test of the workspace and ends with one line: "N passed, N failed".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp "${TMPDIR:-/tmp}/dray-tests.XXXXXX")
trap 'rm -f "$log"' EXIT

# The end-to-end tests run the binaries of this same build.
cargo build --locked --workspace --all-targets

status=0
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?
    # Summary [  12.3s] 99 tests run: 97 passed (1 slow), 1 failed, 1 timed out, 3 skipped
    counts='
        /Summary \[/ {
            passed = failed = 0
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) passed = $(i - 1)
                if ($i ~ /^(failed|exec|timed)/) failed += $(i - 1)
            }
        }'
else
    cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?
    # test result: ok. 12 passed; 0 failed; 0 ignored; ...
    counts='/^test result:/ { passed += $4; failed += $6 }'
fi

sed 's/\x1b\[[0-9;]*m//g' "$log" | awk "$counts"' END { printf "%d passed, %d failed\n", passed, failed }'
exit "$status"
