#!/usr/bin/env bash
# test.sh CARGO-TEST-ARGUMENTS...: cargo test. Tests of real processes that failed while the machine itself stood still
# are run again, once: how long something took says nothing then. tests/it/support/machine.rs tells such moments (a
# virtual machine that was paused, a disk that did not answer); without one, what failed has failed.
set -uo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export POINTSMAN_TEST_DISTURBANCES=$scratch/disturbances
: >"$POINTSMAN_TEST_DISTURBANCES"

# The pipe hides the terminal from cargo.
[[ -t 1 && -z ${NO_COLOR:-} ]] && export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-always}

cargo test --no-fail-fast "$@" 2>&1 | tee "$scratch/output"
code=${PIPESTATUS[0]}
[[ $code -eq 0 ]] && exit 0

plain=$(sed 's/\x1b\[[0-9;]*m//g' "$scratch/output")
targets=$(sed -n 's/^ *`\(--[^`]*\)`$/\1/p' <<<"$plain" | sort -u)
failed=$(sed -n 's/^    \([a-z0-9_]*\(::[a-z0-9_]*\)*\)$/\1/p' <<<"$plain" | sort -u)
if [[ $targets != '--test it' || -z $failed || ! -s $POINTSMAN_TEST_DISTURBANCES ]]; then
    exit "$code"
fi

# Everything before `--` says how to build; what stands behind it says which tests.
build=()
for argument in "$@"; do
    [[ $argument == -- ]] && break
    build+=("$argument")
done
echo "pointsman: the machine stood still during the tests:"
sed 's/^/  /' "$POINTSMAN_TEST_DISTURBANCES"
echo "pointsman: run again, once:"
sed 's/^/  /' <<<"$failed"
mapfile -t names <<<"$failed"
cargo test "${build[@]}" --test it -- --exact "${names[@]}"
