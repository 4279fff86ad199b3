#!/usr/bin/env bash
# Runs a tool that is worth having but not worth installing for everyone: skipped, and said so, where it is missing.
set -euo pipefail
tool=$1
if ! command -v "$tool" >/dev/null; then
    echo "$tool is not installed: skipped"
    exit 0
fi
exec "$@"
