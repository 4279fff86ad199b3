#!/usr/bin/env bash
# Runs a command as one step: its name first, its time last, also when it fails.
set -uo pipefail
name=$1
shift
echo "== $name"
start=$SECONDS
"$@"
code=$?
echo "== $name: $([[ $code -eq 0 ]] && echo ok || echo "failed with code $code") after $((SECONDS - start)) s"
exit $code
