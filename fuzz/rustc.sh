#!/usr/bin/env bash
# The compiler for the fuzzed code alone, with libFuzzer's counters (cargo's RUSTC_WORKSPACE_WRAPPER): what lies below it is
# compiled without, which takes a fraction of the time, and where it was branched there says nothing of our code.
set -euo pipefail
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
