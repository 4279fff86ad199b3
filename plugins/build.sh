#!/bin/sh
# Builds the policies that ship into plugins/artifacts/, byte for byte the same on every machine.
#
#   build.sh             rebuild the artifacts
#   build.sh --check     rebuild elsewhere and fail if the committed artifacts differ
#   build.sh --bindings  generate the SDK's bindings from wit/ anew (needed after wit/ changed)
#
# What makes them the same: the compiler is pinned in rust-toolchain.toml, the crates in Cargo.lock, paths are
# remapped, symbols stripped. Needs rustup; it fetches the pinned compiler and the wasm target by itself.
set -eu
cd "$(dirname "$0")"

target=${CARGO_TARGET_DIR:-$PWD/target}
policies="read-write-split tenant-router"
mode=${1:-}

# rustup's proxy installs what rust-toolchain.toml asks for; without it the target must be there already.
if command -v rustup >/dev/null 2>&1; then
    rustup target add wasm32-unknown-unknown >/dev/null 2>&1 || {
        echo "build.sh: rustup could not add the target wasm32-unknown-unknown" >&2
        exit 1
    }
fi

if [ "$mode" = --bindings ]; then
    cargo run --quiet --locked --release --target-dir "$target" -p pointsman-policy-tools --features bindings -- \
        bindings ../wit sdk/src
    mv sdk/src/policy.rs sdk/src/bindings.rs
    exit
fi

# No path of this machine may end up in the code: neither the checkout's, nor the registry's, nor the compiler's.
home=${CARGO_HOME:-$HOME/.cargo}
flags="--remap-path-prefix=$PWD=/plugins --remap-path-prefix=$(rustc --print sysroot)=/rust"
for registry in "$home"/registry/src/*; do
    flags="$flags --remap-path-prefix=$registry=/registry"
done
# A small stack of its own lets an instance start with two pages of memory instead of seventeen.
flags="$flags -Clink-arg=-zstack-size=131072"

packages=""
for policy in $policies; do packages="$packages -p pointsman-$policy"; done
# The flags go to this build alone, so that the tools below keep theirs.
CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$flags" RUSTFLAGS= CARGO_ENCODED_RUSTFLAGS= \
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
    cargo build --quiet --locked --release --target wasm32-unknown-unknown --target-dir "$target" $packages
cargo build --quiet --locked --release --target-dir "$target" -p pointsman-policy-tools

out=artifacts
[ "$mode" = --check ] && out=$target/check && mkdir -p "$out"
status=0
for policy in $policies; do
    core=$target/wasm32-unknown-unknown/release/pointsman_$(echo "$policy" | tr - _).wasm
    "$target/release/pointsman-policy-tools" encode "$core" "$out/$policy.wasm"
    if [ "$mode" = --check ] && ! cmp -s "$out/$policy.wasm" "artifacts/$policy.wasm"; then
        echo "build.sh: artifacts/$policy.wasm is not what its source builds; run plugins/build.sh and commit" >&2
        status=1
    fi
done
exit $status
