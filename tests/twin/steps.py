"""What clients do: steps as plain lists, drawn from a seed, so that a run can be written down, replayed and shortened.

A step is a dictionary: `sql` for a simple query, or `ops` for messages of the extended protocol; `copy` for the messages
that answer a request for data. Marks say what the run must know ahead:

    hold     the client may need its server afterwards: a transaction, a temporary table, a lock, …
    sticky   and to the end of its session or DISCARD ALL, as nobody but the server knows what was set
    shared   what it gives depends on other clients: locks that all try, notifications
    writes   it may write, which a replica's transaction cannot

What is known to differ from a direct connection is drawn only where a flag asks for it, or not at all (README.md).
"""

from wire import SIDE

# The flags, and what they stand for.
FLAGS = {
    "currval": "currval and lastval after a nextval in a transaction of its own",
    "ddl": "DDL that changes the columns of a statement that stays prepared",
    "sql-execute": "EXECUTE of a statement that was prepared through the protocol",
    "read-only": "transactions READ ONLY whose first statement is not a probe, so that a replica may have them",
}
VALUES = {
    "work_mem": ["1MB", "7MB", "64MB"], "statement_timeout": ["10min", "11min"], "lock_timeout": ["9s", "8s"],
    "application_name": ["one", "it''s", "naïve", ""], "DateStyle": ["ISO, DMY", "German", "SQL, MDY", "Postgres, YMD"],
    "TimeZone": ["UTC", "Asia/Tokyo", "America/New_York", "<+03>-03"], "IntervalStyle": ["iso_8601", "postgres_verbose"],
    "client_encoding": ["UTF8", "LATIN1", "SQL_ASCII", "EUC_JP", "nonsense"], "search_path": ["public", "other, public", "pg_catalog", "", "pg_temp, public"],
    "default_transaction_isolation": ["repeatable read", "serializable", "read committed"], "bytea_output": ["escape", "hex"],
    "enable_seqscan": ["off", "on"], "standard_conforming_strings": ["off", "on"], "extra_float_digits": ["0", "3"],
    "tw.a": ["x", "y z"], "TW.B": ["1"], "default_transaction_read_only": ["on", "off"], "row_security": ["off", "on"],
    "default_transaction_deferrable": ["off"], "idle_in_transaction_session_timeout": ["10min"],
    "client_min_messages": ["error", "warning", "debug1", "log"], "synchronous_commit": ["off", "local", "on"],
    "check_function_bodies": ["off"], "xmloption": ["document"], "lc_monetary": ["C", "nonsense"], "vacuum_cost_delay": ["3"],
    "session_replication_role": ["replica", "origin"], "temp_tablespaces": [""], "plan_cache_mode": ["force_custom_plan"],
    "transaction_isolation": ["serializable", "read committed"], "max_connections": ["5"], "no_such_setting": ["1"],
    "default_table_access_method": ["heap", "nothing"], "jit": ["off"], "array_nulls": ["off"], "lo_compat_privileges": ["on"],
    "role": ["twin_one", "none"], "session_authorization": ["twin_two"], "backslash_quote": ["on", "off"],
}
CUSTOM = ["tw.a", "tw.b"]
SHOWN = ["work_mem", "statement_timeout", "lock_timeout", "application_name", "DateStyle", "TimeZone", "IntervalStyle",
         "client_encoding", "search_path", "default_transaction_isolation", "bytea_output", "enable_seqscan",
         "standard_conforming_strings", "extra_float_digits", "default_transaction_read_only", "row_security", "role",
         "session_authorization", "client_min_messages", "synchronous_commit", "session_replication_role",
         "transaction_isolation", "transaction_read_only", "transaction_deferrable"]
NAMES = ["n1", "n2"]
CONTROL = "n3"
PORTALS = ["", "p1", "p2"]
READS = [("SELECT 1 AS one", []), ("SELECT current_setting('work_mem') AS m", []), ("SELECT count(*) FROM t", []),
         ("SELECT now() IS NOT NULL", []), ("SELECT $1::text AS p", ["v"]), ("SELECT * FROM t WHERE n = $1", ["2"]),
         ("SELECT $1::int / $2::int", ["4", "0"]), ("TABLE t", []), ("SELECT generate_series(1, $1::int)", ["5"]),
         ("SHOW work_mem", []), ("SELEC", []), ("SELECT * FROM nowhere", []), ("", []), ("SELECT n FROM t ORDER BY n", []),
         ("SELECT current_user, session_user", []), ("SELECT to_char(timestamptz '2020-02-02 00:00Z', 'HH24 TZ')", []),
         ("SELECT timestamptz '2020-02-02 00:00Z', 1.1::float8, '\\x01'::bytea", []), ("VALUES (1), (2), (3)", [])]
CONTROLS = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a", "RELEASE a", "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET LOCAL work_mem = '3MB'", "SET work_mem = '5MB'", "RESET work_mem",
            "DISCARD PLANS", "SET LOCAL statement_timeout = '7min'", "COMMIT AND CHAIN", "END", "ABORT", "START TRANSACTION READ WRITE",
            "SET search_path = other, public", "RESET search_path", "SET ROLE twin_one", "RESET ROLE", "SET LOCAL TimeZone = 'Asia/Tokyo'"]


def executes_what_failed(step, status):
    """Whether a step executes an unnamed portal that it did not bind itself right before, where the transaction has failed, or may
    have in a group before."""
    bound, failed, begun = False, status == "E", status != "I"
    for op in step.get("ops", ()):
        if op[:2] == ["E", ""] and not bound and failed:
            return True
        bound = op[0] != "S" and (bound or op[:2] == ["B", ""])
        begun = begun or begins(op)
        failed = failed or begun and op[0] == "S"
    return False


def describes_what_failed(step, status):
    """Whether a step describes a statement where the transaction has failed, or may have in a group before: a server that lacks
    the statement cannot prepare it there."""
    failed, begun = status == "E", status != "I"
    for op in step.get("ops", ()):
        if op[:2] == ["D", "S"] and failed:
            return True
        begun = begun or begins(op)
        failed = failed or begun and op[0] == "S"
    return False


def begins(op):
    """Whether a message may begin a transaction: under the name of what it binds may be a BEGIN."""
    return op[0] in "PB" and (CONTROL in op[1:3] or op[2].startswith(("BEGIN", "START")))


class Draw:
    """Draws steps for one client after the other."""

    def __init__(self, rng, flags, functions):
        self.rng, self.flags, self.functions = rng, flags, functions

    def own(self, number):
        """Statements on the client's own table."""
        rng, key = self.rng, self.rng.randrange(4)
        return rng.choice([
            (f"INSERT INTO public.t{number} VALUES ($1)", [str(key)]), (f"SELECT count(*) FROM public.t{number}", []),
            (f"UPDATE public.t{number} SET n = n + 1 WHERE n = $1 RETURNING n", [str(key)]),
            (f"DELETE FROM public.t{number} WHERE n = $1", [str(key)]),
            (f"INSERT INTO public.u{number} VALUES ($1)", [str(key)]),
        ])

    def setting(self):
        rng = self.rng
        name = rng.choice(list(VALUES))
        value = rng.choice(VALUES[name])
        plain = value if name in ("search_path", "DateStyle") and value else f"'{value}'"
        return name, value, plain

    def group(self, number, inside):
        """One group up to a Sync: statements prepared, bound, described, executed, closed, in an order that may be wrong."""
        rng, ops, marks = self.rng, [], {}
        for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
            source = rng.random()
            if source < 0.55:
                sql, values = rng.choice(READS)
            elif source < 0.8:
                sql, values = self.own(number)
                marks["writes"] = True
            elif source < 0.95:
                sql, values = rng.choice(CONTROLS), []
                marks["hold"] = True
            else:
                name, value, _ = self.setting()
                sql, values = "SELECT set_config($1, $2, $3::bool)", [name, value.replace("''", "'"), rng.choice(["true", "false"])]
            # What may begin a transaction has a name of its own, so that other groups are known not to.
            name = CONTROL if "set_config" in sql else rng.choice(["", CONTROL] if sql in CONTROLS else ["", *NAMES] if rng.random() < 0.9 else [CONTROL])
            if name == CONTROL:
                marks["hold"] = marks["sticky"] = True
            portal = rng.choice(PORTALS if inside else ["", "", "p1"])
            if name == CONTROL or sql in CONTROLS:
                # The portal of a BEGIN that waits for its first statement is not on a server.
                portal = ""
            shape = rng.random()
            if shape < 0.45:
                ops += [["P", name, sql], ["B", portal, name, values]]
                if rng.random() < 0.6:
                    ops.append(["D", "P", portal])
                ops.append(["E", portal, rng.choice([0, 0, 0, 1, 2])])
            elif shape < 0.6:
                ops += [["C", "S", name], ["P", name, sql]]
                if rng.random() < 0.5:
                    ops.append(["D", "S", name])
            elif shape < 0.85:
                if name in ("", CONTROL):
                    # It may be a set_config whose values do not say what it sets.
                    marks["hold"] = marks["sticky"] = True
                ops += [["B", portal, name, rng.choice([[], [], values, ["x"], [None]])], ["D", "P", portal], ["E", portal, rng.choice([0, 1])]]
            elif shape < 0.9:
                ops += [["D", "S", name]]
            elif shape < 0.94:
                ops += [["C", rng.choice("SP"), rng.choice([name, portal])]]
            else:
                # Not the unnamed portal: it may be that of a BEGIN or the like.
                ops += [["E", portal or "p1", rng.choice([0, 1])]]
        if rng.random() < 0.05:
            ops.insert(rng.randrange(len(ops) + 1), [rng.choice("SSH")])
        return {"ops": ops + [["S"]], **marks}

    def pipeline(self, number):
        """Several groups at once."""
        groups = [self.group(number, False) for _ in range(self.rng.choice([2, 2, 3, 5]))]
        marks = {name: True for group in groups for name in group if name != "ops"}
        return {**marks, "ops": [op for group in groups for op in group["ops"]]}

    def copy(self, number):
        rng = self.rng
        lines = [["d", f"{rng.randrange(9)}\n"] for _ in range(rng.randrange(4))]
        end = rng.choice([[["c"]], [["c"]], [["f", "no more"]], [["d", "no number\n"], ["c"]], [["H"], ["c"]], [["f", ""], ["c"]], [["d", "\\.\n7\n"], ["c"]]])
        table = rng.choice([f"t{number}", f"t{number}", "nowhere"])
        sql = f"COPY public.{table} FROM STDIN"
        if rng.random() < 0.4:
            return {"ops": [["P", "", sql], ["B", "", "", []], ["E", "", 0], *lines, *end, ["S"]], "writes": True}
        return {"sql": sql + rng.choice(["", "", "; SELECT 1", "; SELECT 1/0"]), "copy": lines + end, "writes": True}

    def everywhere(self, number):
        """Steps that make sense whatever the transaction's status; weights ahead."""
        rng = self.rng
        name, value, plain = self.setting()
        key, point = rng.randrange(4), rng.choice("ab")
        channel = rng.choice(["ch1", '"Ch 2"'])
        role = rng.choice(["twin_one", "twin_two", "none", '"Twin Three"', "twin_nobody"])
        mark = dict

        def say(sql, **marks):
            return mark(sql=sql, **marks)

        def bound(sql, values, **marks):
            return mark(ops=[["P", "", sql], ["B", "", "", values], ["D", "P", ""], ["E", "", 0], ["S"]], **marks)

        own = rng.choice([f"t{number}", f"u{number}"])
        known = []
        if "currval" in self.flags:
            known += [(4, say(f"SELECT nextval('public.q{number}')", writes=True)),
                      (4, say(f"SELECT currval('public.q{number}'), lastval()", hold=True, sticky=True))]
        if "ddl" in self.flags:
            known += [(3, say(f"ALTER TABLE d{number} ADD COLUMN IF NOT EXISTS m int", writes=True)),
                      (6, mark(ops=[["P", NAMES[0], f"SELECT * FROM d{number}"], ["S"]])),
                      (6, mark(ops=[["B", "", NAMES[0], []], ["D", "P", ""], ["E", "", 0], ["S"]]))]
        if "sql-execute" in self.flags:
            known.append((4, say(f"EXECUTE {rng.choice(NAMES)}")))
        return known + [
            (8, say(f"SET {name} = {plain}")), (3, say(f"SET SESSION {name} TO {plain}")),
            (5, say(f"SET LOCAL {name} = {plain}")), (4, say(f"RESET {name}")), (2, say(f"SET {name} TO DEFAULT")),
            (1, say("RESET ALL")),
            (5, bound("SELECT set_config($1, $2, $3::bool)", [name, value.replace("''", "'"), rng.choice(["true", "false"])])),
            (3, say(f"SELECT set_config('{name}', '{value}', {rng.choice(['true', 'false'])})")),
            (2, bound(f"SET {name} = {plain}", [])),
            (1, say(f"SELECT set_config(lower('{name}'), '{value}', false)", hold=True, sticky=True)),
            (1, say(f"UPDATE pg_settings SET setting = '{value}' WHERE name = '{name}'", hold=True, sticky=True)),
            (4, say(f"SET ROLE {role}")), (1, say(f"SET LOCAL ROLE {role}")), (2, say("RESET ROLE")),
            (1, say(f"SET SESSION AUTHORIZATION {rng.choice(['twin_one', 'twin_two', 'DEFAULT'])}")),
            (1, say("SET LOCAL SESSION AUTHORIZATION twin_one")), (2, say("RESET SESSION AUTHORIZATION")),
            (1, say(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {rng.choice(['SERIALIZABLE', 'READ COMMITTED'])}")),
            (1, say(f"SET TIME ZONE {rng.choice(['LOCAL', '3', 'DEFAULT'])}")), (1, say("SET NAMES 'LATIN1'")),
            (1, say(f"DO $$ BEGIN PERFORM set_config('{name}', '{value}', false); END $$", hold=True, sticky=True)),
            (1, say(f"DO $$ BEGIN EXECUTE 'SET work_mem = ''{rng.randrange(1, 9)}MB'''; END $$", hold=True, sticky=True)),
            (1, say(f"SET {name} = {plain}; SELECT 1/0")), (1, say(f"SELECT 1; SET {name} = {plain}; SELECT 2")),
            (1, say(f"BEGIN; SET {name} = {plain}; {rng.choice(['COMMIT', 'ROLLBACK'])}", hold=True)),
            (1, say(f"SET {name} = {plain}; COMMIT; SELECT 1/0")),
            (1, say("SELECT 1; SELECT 2; SELECT 1/0; SELECT 3")), (1, say("BEGIN; SELECT 1/0; COMMIT", hold=True)),
            (1, say(f"INSERT INTO public.{own} VALUES (1); SELECT 1/0", writes=True)),
            (1, say(f"INSERT INTO public.{own} VALUES (1); COMMIT; SELECT 1/0", writes=True)),
            (2, say(f"PREPARE s{key} AS {rng.choice(READS)[0]}", hold=True)),
            (3, say(f"EXECUTE s{key}{rng.choice(['', '', '(2)'])}")), (1, say(f"DEALLOCATE s{key}")), (1, say("DEALLOCATE ALL")),
            (18, self.group(number, False)), (2, say(f"DEALLOCATE {rng.choice(NAMES)}")),
            (2, bound(*self.own(number), writes=True)), (4, self.copy(number)),
            (1, say(rng.choice(["COPY (SELECT generate_series(1, 5)) TO STDOUT", "COPY t TO STDOUT; SELECT 1", "COPY nowhere TO STDOUT"]))),
            (2, say(f"CREATE TEMP TABLE tt{key} (n int) {rng.choice(['', 'ON COMMIT DROP', 'ON COMMIT DELETE ROWS'])}", hold=True)),
            (1, say(f"CREATE TEMP TABLE tt{key} AS SELECT 5 AS n", hold=True)),
            (1, say(f"SELECT 5 AS n INTO TEMP tt{key}", hold=True)), (1, say(f"CREATE TEMP SEQUENCE ts{key}", hold=True)),
            (1, say(f"CREATE TABLE pg_temp.tt{key} (n int)", hold=True)), (1, say(f"CREATE TEMP VIEW tv{key} AS SELECT 1 AS n", hold=True)),
            (3, say(f"DROP TABLE IF EXISTS pg_temp.tt{key}")), (1, say(f"DROP VIEW IF EXISTS pg_temp.tv{key}")),
            (1, say(f"INSERT INTO tt{key} VALUES (1); SELECT count(*) FROM tt{key}")),
            (1, say(f"CREATE TABLE d{number} (n int)", hold=True, writes=True)), (1, say(f"DROP TABLE IF EXISTS d{number}", writes=True)),
            (1, say(f"INSERT INTO d{number} VALUES (1)", writes=True)),
            (2, say(f"SELECT pg_try_advisory_lock{rng.choice(['', '_shared'])}({key})", hold=True, shared=True)),
            (2, say(f"SELECT pg_advisory_unlock{rng.choice(['', '_shared'])}({key})", shared=True)),
            (1, say(f"SELECT pg_try_advisory_xact_lock{rng.choice(['', '_shared'])}({key})", shared=True)),
            (1, mark(ops=[["F", self.functions["pg_try_advisory_lock(bigint)"], [str(key)]]], hold=True, shared=True)),
            (1, mark(ops=[["F", self.functions["set_config(text,text,boolean)"], [name, value, "f"]]], hold=True, sticky=True)),
            (1, say("SELECT pg_advisory_unlock_all()", shared=True)),
            (2, say(f"DECLARE c{key} {rng.choice(['', 'SCROLL', 'BINARY'])} CURSOR {rng.choice(['', 'WITH HOLD', 'WITH HOLD'])} "
                    "FOR SELECT generate_series(1, 9)", hold=True)),
            (2, say(f"FETCH {rng.choice(['1', '2', 'ALL', 'PRIOR', '0'])} FROM c{key}")), (1, say(f"MOVE 2 IN c{key}")),
            (1, mark(ops=[["D", "P", f"c{key}"], ["E", f"c{key}", 2], ["S"]])), (1, mark(ops=[["C", "P", f"c{key}"], ["S"]])),
            (1, say(f"CLOSE c{key}")), (2, say("CLOSE ALL")),
            (2, say(f"LISTEN {channel}", shared=True)), (2, say(f"UNLISTEN {rng.choice([channel, '*'])}", shared=True)),
            (1, say(f"NOTIFY {channel}, 'x{key}'", shared=True, writes=True)),
            (1, say(f"SELECT pg_notify('ch1', 'y{key}')", shared=True, writes=True)),
            (2, say("SELECT 1/0")), (1, say("SELEC 1")), (1, bound("SELECT $1::int", ["no number"])),
            (2, say(f"INSERT INTO public.{own} VALUES ({key})", writes=True)), (1, say(f"INSERT INTO u{number} VALUES ({key}), ({key})", writes=True)),
            (2, bound(f"SELECT count(*) FROM public.t{number}", [])), (2, say(f"SHOW {rng.choice(SHOWN)}")),
            (1, say(f"SET CONSTRAINTS {rng.choice(['ALL', f'public.u{number}_k'])} {rng.choice(['DEFERRED', 'IMMEDIATE'])}")),
            (1, say(f"SELECT lo_create({number * 10 + key + 5000})", writes=True)), (1, say(f"SELECT lo_unlink({number * 10 + key + 5000})", writes=True)),
            (1, say(f"SELECT lowrite(lo_open({number * 10 + key + 5000}, 131072), 'abc')", writes=True)),
            (1, say(f"SELECT loread(0, 9), lo_get({number * 10 + key + 5000})")),
            (1, say("SET statement_timeout = 20; SELECT pg_sleep(20)")), (1, say("DISCARD ALL")),
            (1, say(f"DISCARD {rng.choice(['PLANS', 'SEQUENCES', 'TEMP'])}")), (1, say("")), (1, say("; ;")),
            (1, say("VACUUM t")), (1, say(f"TRUNCATE public.t{number}", writes=True)), (1, say(f"LOCK TABLE public.t{number}", writes=True)),
            (1, say(f"SELECT 1 FROM public.t{number} LIMIT 1 FOR UPDATE", writes=True)),
            (1, say("EXPLAIN (COSTS OFF) SELECT * FROM t")),
            (2, self.pipeline(number)), (1, say(f"PREPARE s{key} AS SELEC", hold=True)),
            (1, say(f"SELECT nextval('public.q{number}'), currval('public.q{number}'), lastval()", hold=True, sticky=True, writes=True)),
            (1, say(f"SELECT public.{rng.choice(['sets', 'fails'])}('{rng.randrange(1, 9)}MB')", hold=True, shared=True)),
            (1, bound("SELECT public.sets($1)", [rng.choice(["4MB", "nonsense"])], hold=True)),
            (1, say("SELECT public.clause(), current_setting('work_mem')")), (1, say(f"CALL public.commits('{rng.randrange(1, 9)}MB')", hold=True)),
            (1, say(f"CREATE FUNCTION pg_temp.tf{key}() RETURNS int LANGUAGE sql AS 'SELECT {key}'", hold=True)),
            (1, say(f"SELECT pg_temp.tf{key}()")), (1, say(f"DROP FUNCTION IF EXISTS pg_temp.tf{key}")),
            (1, say(f"ALTER TABLE pg_temp.tt{key} RENAME TO tt{3 - key}")), (1, say(f"CREATE INDEX ON pg_temp.tt{key} (n)")),
            (1, say(f"CREATE TEMP TABLE tt{key} (n int); SELECT 1/0", hold=True)),
            (1, say("DO $$ BEGIN CREATE TEMP TABLE tt8 (n int); END $$", hold=True)),
            (1, say("DO $$ BEGIN EXECUTE 'LISTEN ch1'; END $$", hold=True, shared=True)),
            (1, say(f"SELECT pg_try_advisory_lock(1, {key}), pg_try_advisory_lock({key}), 1/{rng.randrange(2)}", hold=True, shared=True)),
            (1, say(f"LISTEN ch1; SELECT 1/{rng.randrange(2)}", shared=True)), (1, say(f"LISTEN {channel}; NOTIFY {channel}; UNLISTEN *", shared=True)),
            (1, say("COPY (SELECT 10 / (5 - g) FROM generate_series(1, 9) g) TO STDOUT")),
            (1, say(f"{rng.choice(['COMMIT', 'ROLLBACK'])} PREPARED 'nothing'")),
        ]

    def begin(self):
        """And where no transaction is open."""
        rng = self.rng
        words = ["BEGIN", "BEGIN", "START TRANSACTION", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ ONLY",
                 "BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE", "BEGIN; SELECT 1", "BEGIN; SET LOCAL work_mem = '2MB'"]
        return [
            (16, {"sql": rng.choice(words), "hold": True}),
            (3, {"ops": [["P", "", "BEGIN"], ["B", "", "", []], ["E", "", 0], ["S"]], "hold": True}),
            (2, {"sql": rng.choice(["COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK AND CHAIN", "RELEASE a"])}),
        ]

    def inside(self, number):
        """And in a transaction."""
        rng, point = self.rng, self.rng.choice("ab")
        chain = rng.choice(["COMMIT", "ROLLBACK"])
        return [
            (16, {"sql": "COMMIT"}), (8, {"sql": "ROLLBACK"}), (1, {"sql": f"{chain} AND CHAIN"}), (1, {"sql": f"{chain}; SELECT 1"}),
            (3, {"ops": [["P", "", "COMMIT"], ["B", "", "", []], ["E", "", 0], ["S"]]}),
            (10, {"sql": f"SAVEPOINT {point}"}), (10, {"sql": f"ROLLBACK TO {point}"}), (5, {"sql": f"RELEASE {point}"}), (1, {"sql": "BEGIN"}),
            (2, {"sql": f"PREPARE TRANSACTION 'twin {number} {SIDE}'"}),
            (2, {"sql": rng.choice(["SET TRANSACTION READ ONLY", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"])}),
            (8, self.group(number, True)),
        ]

    def step(self, number, status, wanted):
        """One that `wanted` takes, for a client whose transaction has that status."""
        steps = self.everywhere(number) + (self.begin() if status == "I" else self.inside(number))
        if status == "E" and self.rng.random() < 0.7:
            steps = self.inside(number)
        for fails in (describes_what_failed, executes_what_failed):
            steps = [(weight, step) for weight, step in steps if not fails(step, status)]
        steps = [(weight, step) for weight, step in steps if wanted(step)]
        return self.rng.choices([step for _, step in steps], [weight for weight, _ in steps])[0]

    def release(self, status, state):
        """A step after which the client needs its server less. `state`: kinds of what it holds."""
        if status != "I":
            return {"sql": self.rng.choice(["COMMIT", "ROLLBACK", "ROLLBACK"])}
        ways = {"temporary": "DISCARD TEMP", "cursor": "CLOSE ALL", "lock": "SELECT pg_advisory_unlock_all()",
                "prepared": "DEALLOCATE ALL", "sources": "SET standard_conforming_strings = on"}
        known = [sql for kind, sql in ways.items() if kind in state]
        if not known or self.rng.random() < 0.2:
            return {"sql": "DISCARD ALL"}
        return {"sql": self.rng.choice(known)}
