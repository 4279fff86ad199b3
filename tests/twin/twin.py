"""Each client of the gateway has a twin on a direct connection; after every step both must see the same session.

    twin.py GATEWAY_URL DIRECT_URL SEED STEPS [CLIENTS]

Both URLs lead to the same server but to databases of their own, so that locks, channels and tables do not meet. A seed
draws the steps: who does what. A step runs on the client and on its twin; its results must be equal, and then every
client's visible session state must equal its twin's: settings, role, transaction status, prepared statements, temporary
tables, cursors, locks, channels. The first difference ends the run with exit code 1, the seed, and the steps that led
to it, so that the same command line replays it.

Deliberately not compared: the source of a setting; whether a custom setting that has no value is unknown or empty (a
server remembers the name of one that was once set); settings of libraries, which are there once a server has loaded them. Not tried: EXECUTE of a statement that was
prepared through the protocol.
"""

import random
import re
import sys
import time

from psycopg import pq

TRANSACTION = {0: "idle", 1: "active", 2: "in transaction", 3: "failed", 4: "lost"}
REPORTED = ["application_name", "client_encoding", "DateStyle", "IntervalStyle", "is_superuser", "session_authorization",
            "standard_conforming_strings", "TimeZone", "integer_datetimes", "default_transaction_read_only", "in_hot_standby"]
VALUES = {
    "work_mem": ["1MB", "7MB", "64MB"], "statement_timeout": ["10min", "11min"], "lock_timeout": ["9s", "8s"],
    "application_name": ["one", "it''s", "naïve"], "DateStyle": ["ISO, DMY", "German", "SQL, MDY", "Postgres, YMD"],
    "TimeZone": ["UTC", "Asia/Tokyo", "America/New_York"], "IntervalStyle": ["iso_8601", "postgres_verbose"],
    "client_encoding": ["UTF8", "LATIN1", "SQL_ASCII"], "search_path": ["public", "other, public", "pg_catalog", ""],
    "default_transaction_isolation": ["repeatable read", "serializable", "read committed"], "bytea_output": ["escape", "hex"],
    "enable_seqscan": ["off", "on"], "standard_conforming_strings": ["off", "on"], "extra_float_digits": ["0", "3"],
    "tw.a": ["x", "y z"], "TW.B": ["1"], "default_transaction_read_only": ["on", "off"], "row_security": ["off", "on"],
}
CUSTOM = ["tw.a", "tw.b"]
NAMES = ["n1", "n2", "n3"]
TEXTS = ["SELECT 1 AS one", "SELECT current_setting('work_mem') AS m", "SELECT count(*) FROM t", "SELECT now() IS NOT NULL", "SELECT $1::text AS p"]
BRIEF = ["work_mem", "statement_timeout", "lock_timeout", "application_name", "DateStyle", "TimeZone", "IntervalStyle", "client_encoding",
         "search_path", "default_transaction_isolation", "bytea_output", "enable_seqscan", "standard_conforming_strings",
         "extra_float_digits", "default_transaction_read_only", "row_security", "role", "session_authorization",
         "transaction_isolation", "transaction_read_only"]
PROBE = (
    "SELECT 'settings', pg_catalog.array_to_string(ARRAY["
    + ",".join([f"pg_catalog.current_setting('{name}')" for name in BRIEF]
               + [f"coalesce(pg_catalog.current_setting('{name}', true), '')" for name in CUSTOM])
    + "], ';') UNION ALL SELECT 'user', concat(current_user, ' ', session_user)"
    " UNION ALL SELECT 'schemas', regexp_replace(pg_catalog.current_schemas(false)::text, 'pg_temp_\\d+', 'pg_temp')"
    " UNION ALL (SELECT 'prepared', name FROM pg_catalog.pg_prepared_statements WHERE from_sql ORDER BY 2)"
    " UNION ALL (SELECT 'temporary', relname FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() ORDER BY 2)"
    " UNION ALL (SELECT 'cursor', concat(name, is_holdable) FROM pg_catalog.pg_cursors ORDER BY 2)"
    " UNION ALL (SELECT 'lock', concat(classid, ' ', objid, ' ', mode) FROM pg_catalog.pg_locks"
    " WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() ORDER BY 2)"
    " UNION ALL (SELECT 'channel', c FROM pg_catalog.pg_listening_channels() c ORDER BY 2)"
)
ALL = " UNION ALL (SELECT 'setting ' || name, setting FROM pg_catalog.pg_settings WHERE name !~ '\\.' ORDER BY 1)"


class Side:
    """One connection, and what it said."""

    def __init__(self, url):
        self.url = url
        self.connect("")

    def connect(self, options):
        self.link = pq.PGconn.connect((self.url + options).encode())
        if self.link.status != pq.ConnStatus.OK:
            raise RuntimeError(self.link.error_message.decode(errors="replace"))
        self.link.notice_handler = None

    def result(self, result):
        """What the client sees of a result."""
        if result.status == pq.ExecStatus.FATAL_ERROR:
            code = result.error_field(pq.DiagnosticField.SQLSTATE)
            message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
            text = (message or result.error_message).decode(errors="replace")
            # The gateway's servers know statements by names of its own; a few messages say them.
            return "error", code and code.decode(), re.sub(r'prepared statement "[^"]*"', "prepared statement", text)
        rows = [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]
        return pq.ExecStatus(result.status).name, (result.command_status or b"").decode(), rows

    def simple(self, sql):
        self.link.send_query(sql.encode())
        results = []
        while (result := self.link.get_result()) is not None:
            results.append(self.result(result))
        return results

    def run(self, step):
        kind, *arguments = step
        if kind == "simple":
            return self.simple(*arguments)
        if kind == "extended":
            sql, values = arguments
            return self.result(self.link.exec_params(sql.encode(), [v.encode() for v in values]))
        if kind == "prepare":
            return self.result(self.link.prepare(arguments[0].encode(), arguments[1].encode()))
        if kind == "execute":
            return self.result(self.link.exec_prepared(arguments[0].encode(), [v.encode() for v in arguments[1]] or None))
        if kind == "reconnect":
            self.link.finish()
            self.connect(arguments[0])
            return "connected"
        raise ValueError(kind)

    def state(self, thorough):
        status = TRANSACTION[self.link.transaction_status]
        state = [("transaction", status)]
        state += [(f"reported {name}", self.link.parameter_status(name.encode())) for name in REPORTED]
        if status == "idle":
            for name in NAMES:
                described = self.link.describe_prepared(name.encode())
                usable = self.result(described)
                fields = [described.fname(c) for c in range(described.nfields)]
                state.append((f"statement {name}", usable if usable[0] == "error" else fields))
        if status in ("idle", "in transaction"):
            for result in self.simple(PROBE + (ALL if thorough else "")):
                state += [tuple(row) for row in result[2]] if isinstance(result[2], list) else [("probe", result)]
        return state


def draw(rng, status, number):
    """The next step of client `number`."""
    name = rng.choice(list(VALUES))
    value = rng.choice(VALUES[name])
    if name in ("search_path", "DateStyle") and value:
        plain = value
    else:
        plain = f"'{value}'"
    prepared, text, point = rng.choice(NAMES), rng.choice(TEXTS), rng.choice("ab")
    key = rng.randrange(4)
    role = rng.choice(["twin_one", "twin_two", "none", '"Twin Three"', "twin_nobody"])
    channel = rng.choice(["ch1", '"Ch 2"'])
    everywhere = [
        (8, ("simple", f"SET {name} = {plain}")),
        (3, ("simple", f"SET SESSION {name} TO {plain}")),
        (5, ("simple", f"SET LOCAL {name} = {plain}")),
        (4, ("simple", f"RESET {name}")),
        (2, ("simple", f"SET {name} TO DEFAULT")),
        (1, ("simple", "RESET ALL")),
        (4, ("extended", "SELECT set_config($1, $2, $3::bool)", [name, value.replace("''", "'"), rng.choice(["true", "false"])])),
        (3, ("simple", f"SELECT set_config('{name}', '{value}', {rng.choice(['true', 'false'])})")),
        (2, ("extended", f"SET {name} = {plain}", [])),
        (4, ("simple", f"SET ROLE {role}")),
        (1, ("simple", f"SET LOCAL ROLE {role}")),
        (2, ("simple", "RESET ROLE")),
        (1, ("simple", f"SET SESSION AUTHORIZATION {rng.choice(['twin_one', 'twin_two', 'DEFAULT'])}")),
        (2, ("simple", "RESET SESSION AUTHORIZATION")),
        (1, ("simple", f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {rng.choice(['SERIALIZABLE', 'READ COMMITTED'])}")),
        (1, ("simple", f"DO $$ BEGIN PERFORM set_config('{name}', '{value}', false); END $$")),
        (1, ("simple", f"DO $$ BEGIN EXECUTE 'SET work_mem = ''{rng.randrange(1, 9)}MB'''; END $$")),
        (1, ("simple", f"SET {name} = {plain}; SELECT 1/0")),
        (1, ("simple", f"SELECT 1; SET {name} = {plain}; SELECT 2")),
        (1, ("simple", f"BEGIN; SET {name} = {plain}; {rng.choice(['COMMIT', 'ROLLBACK'])}")),
        (3, ("simple", f"PREPARE s{key} AS {rng.choice(TEXTS[:4])}")),
        (3, ("simple", f"EXECUTE s{key}")),
        (1, ("simple", f"DEALLOCATE s{key}")),
        (1, ("simple", "DEALLOCATE ALL")),
        (5, ("prepare", prepared, text)),
        (5, ("execute", prepared, ["v"] if rng.random() < 0.3 else [])),
        (2, ("simple", f"DEALLOCATE {prepared}")),
        (2, ("simple", f"CREATE TEMP TABLE tt{key} (n int) {rng.choice(['', 'ON COMMIT DROP', 'ON COMMIT DELETE ROWS'])}")),
        (1, ("simple", f"CREATE TEMP TABLE tt{key} AS SELECT 5 AS n")),
        (3, ("simple", f"DROP TABLE IF EXISTS pg_temp.tt{key}")),
        (1, ("simple", f"INSERT INTO tt{key} VALUES (1); SELECT count(*) FROM tt{key}")),
        (2, ("simple", f"SELECT pg_try_advisory_lock({key})")),
        (2, ("simple", f"SELECT pg_advisory_unlock({key})")),
        (1, ("simple", f"SELECT pg_try_advisory_xact_lock({key + 10})")),
        (2, ("simple", "SELECT pg_advisory_unlock_all()")),
        (2, ("simple", f"DECLARE c{key} CURSOR {rng.choice(['', 'WITH HOLD', 'WITH HOLD'])} FOR SELECT generate_series(1, 9)")),
        (2, ("simple", f"FETCH {rng.randrange(1, 4)} FROM c{key}")),
        (1, ("simple", f"CLOSE c{key}")),
        (2, ("simple", "CLOSE ALL")),
        (1, ("simple", f"LISTEN {channel}")),
        (2, ("simple", f"UNLISTEN {rng.choice([channel, '*'])}")),
        (1, ("simple", f"NOTIFY {channel}, 'x'")),
        (2, ("simple", "SELECT 1/0")),
        (1, ("simple", "SELEC 1")),
        (1, ("extended", "SELECT $1::int", ["no number"])),
        (2, ("simple", f"INSERT INTO t{number} VALUES ({key})")),
        (2, ("extended", f"SELECT count(*) FROM t{number}", [])),
        (2, ("simple", f"SHOW {rng.choice(BRIEF)}")),
        (1, ("simple", "DISCARD ALL")),
        (1, ("simple", f"DISCARD {rng.choice(['PLANS', 'SEQUENCES', 'TEMP'])}")),
        (1, ("reconnect", rng.choice(["", "?application_name=again", "?options=-c%20work_mem%3D3MB%20-c%20tw.a%3Dfrom_start"]))),
        (1, ("simple", "")),
    ]
    begin = [
        (14, ("simple", rng.choice(["BEGIN", "BEGIN", "START TRANSACTION", "BEGIN ISOLATION LEVEL SERIALIZABLE",
                                    "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE"]))),
        (3, ("extended", "BEGIN", [])),
        (1, ("simple", rng.choice(["COMMIT", "ROLLBACK"]))),
    ]
    inside = [
        (16, ("simple", "COMMIT")),
        (8, ("simple", "ROLLBACK")),
        (2, ("extended", "COMMIT", [])),
        (1, ("simple", f"{rng.choice(['COMMIT', 'ROLLBACK'])} AND CHAIN")),
        (10, ("simple", f"SAVEPOINT {point}")),
        (10, ("simple", f"ROLLBACK TO {point}")),
        (5, ("simple", f"RELEASE {point}")),
        (2, ("simple", rng.choice(["SET TRANSACTION READ ONLY", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"]))),
    ]
    steps = everywhere + (begin if status == "idle" else inside)
    if status == "failed" and rng.random() < 0.7:
        steps = inside
    weights = [weight for weight, _ in steps]
    return rng.choices([step for _, step in steps], weights)[0]


def set_up(urls, clients):
    for url in urls:
        side = Side(url)
        tables = "".join(f"CREATE TABLE t{n} (n int);" for n in range(clients))
        for sql in ["CREATE SCHEMA other; CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2);"
                    "CREATE TABLE other.t (n int, m int); GRANT USAGE ON SCHEMA other TO PUBLIC; GRANT ALL ON t TO twin_one;" + tables]:
            for result in side.simple(sql):
                assert result[0] != "error", result
        side.link.finish()


def main():
    gateway, direct, seed, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    count = int(sys.argv[5]) if len(sys.argv) > 5 else 4
    print(f"twins: seed {seed}, {steps} steps, {count} clients", flush=True)
    rng = random.Random(seed)
    set_up([gateway, direct], count)
    pairs = [(Side(gateway), Side(direct)) for _ in range(count)]
    history = []
    start = time.monotonic()

    def differ(number, what, ours, theirs):
        print(f"\nseed {seed}, step {len(history)}, client {number}: {what} differs")
        print(f"  through the gateway: {ours}\n  direct:              {theirs}\nthe steps of client {number}, and all of the last ten:")
        for index, (who, step) in enumerate(history):
            if who == number and index > len(history) - 200 or index >= len(history) - 10:
                print(f"  {index + 1:>6}  client {who}  {step}")
        sys.exit(1)

    for index in range(steps):
        number = rng.randrange(count)
        ours, theirs = pairs[number]
        step = draw(rng, TRANSACTION[theirs.link.transaction_status], number)
        history.append((number, step))
        results = ours.run(step), theirs.run(step)
        if results[0] != results[1]:
            differ(number, "the answer", *results)
        for other, pair in enumerate(pairs):
            thorough = index % 20 == 0 and other == number
            states = [side.state(thorough) for side in pair]
            if states[0] != states[1]:
                only = [[item for item in mine if item not in yours] for mine, yours in (states, states[::-1])]
                differ(other, "the state", *only)
    print(f"twins: {steps} steps, no difference, {time.monotonic() - start:.1f} s")


main()
