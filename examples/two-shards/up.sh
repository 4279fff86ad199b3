#!/usr/bin/env bash
# Starts two PostgreSQL servers on 127.0.0.1:5450 and :5451 in a temporary folder, with one table `orders` each, until Ctrl-C.
set -euo pipefail
bin=${POINTSMAN_PG_BIN:-$(pg_config --bindir 2>/dev/null || ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)}
[ -x "$bin/initdb" ] || { echo "PostgreSQL's server programs are not installed: apt-get install postgresql" >&2; exit 1; }
dir=$(mktemp -d); as=()
if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; as=(runuser -u postgres --); fi
stop() { for s in 0 1; do "${as[@]}" "$bin/pg_ctl" -D "$dir/s$s" -m fast -s stop || true; done; rm -rf "$dir"; }
trap stop EXIT
for s in 0 1; do
  "${as[@]}" "$bin/initdb" -D "$dir/s$s" -U app -A trust --no-sync >/dev/null
  "${as[@]}" "$bin/pg_ctl" -D "$dir/s$s" -s -w -l "$dir/s$s.log" -o "-p 545$s -c listen_addresses=127.0.0.1 -k $dir" start
  "$bin/psql" -q "postgresql://app@127.0.0.1:545$s/postgres" -c \
    "create table orders (tenant_id text, id int generated always as identity, item text, primary key (tenant_id, id))"
done
echo "Both shards are up. In another terminal: pointsman run --config $(cd "$(dirname "$0")" && pwd)/pointsman.toml"
echo "Ctrl-C stops them and removes $dir."
trap 'exit 0' INT TERM
while sleep 1; do :; done
