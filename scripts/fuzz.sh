#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS. Needs neither cargo-fuzz nor a nightly compiler: libFuzzer wants code that was
# compiled with coverage counters, and the stable compiler inserts those. There is no address sanitizer, and nothing for
# one to find: `unsafe` is denied. What was found by an earlier run is tried first (fuzz/corpus).
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-5}
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# fuzz/rustc.sh has the flags; they are for our code alone.
export RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/rustc.sh
cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target-dir "$target_dir"
for source in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
    echo "fuzz $name: $seconds s"
    if ! "$target_dir/release/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -verbosity=0 \
        -print_final_stats=0 -artifact_prefix="fuzz/artifacts/$name/" "fuzz/corpus/$name" >"fuzz/artifacts/$name.log" 2>&1; then
        tail -n 40 "fuzz/artifacts/$name.log"
        echo "fuzz $name: failed; the input is in fuzz/artifacts/$name/"
        exit 1
    fi
done
