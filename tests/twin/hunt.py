"""The leak hunt: clients of the gateway, more than it has servers, each beside a twin on a direct connection.

    hunt.py --gateway HOST:PORT --admin HOST:PORT --direct HOST:PORT --databases OURS,THEIRS [--seed N] [--steps N]
            [--seconds N] [--clients N] [--servers N] [--ask some|all] [--flag NAME]… [--write FILE] [--replay FILE] [--reduce]

A seed draws what happens (steps.py); each step runs on a client and on its twin, and the answers must be equal message by
message (wire.py); then both must see the same. The first difference ends the run with exit code 1, the seed, the step, what
the client did and what both sides said. README.md says what is compared, what is not, and why.

Servers change hands because there are fewer of them than clients. A client that needs its server (a transaction, a lock,
a temporary table) keeps it, so the run counts those and leaves one server to all others; when none is left, one that
holds must release. A burst sends steps of several clients at once, more than there are servers.

`--write` writes what was done, `--replay` does that again, `--reduce` leaves out what the difference does not need.
"""

import argparse
import json
import random
import re
import socket
import sys
import time

import wire
from steps import CONTROL, CUSTOM, FLAGS, NAMES, SHOWN, Draw

PROBE = (
    "SELECT 'settings', pg_catalog.array_to_string(ARRAY["
    + ",".join([f"pg_catalog.current_setting('{name}')" for name in SHOWN]
               + [f"coalesce(pg_catalog.current_setting('{name}', true), '')" for name in CUSTOM])
    + "], ';') UNION ALL SELECT 'user', concat(current_user, ' ', session_user)"
    " UNION ALL SELECT 'schemas', regexp_replace(pg_catalog.current_schemas(false)::text, 'pg_temp_[0-9]+,?', '')"
    " UNION ALL (SELECT 'prepared', name FROM pg_catalog.pg_prepared_statements WHERE from_sql ORDER BY 2)"
    " UNION ALL (SELECT 'temporary', relname FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() ORDER BY 2)"
    " UNION ALL (SELECT 'temporary', proname FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema() ORDER BY 2)"
    " UNION ALL (SELECT 'cursor', concat(name, is_holdable, is_scrollable) FROM pg_catalog.pg_cursors WHERE name <> '' ORDER BY 2)"
    " UNION ALL (SELECT 'lock', concat(classid, ' ', objid, ' ', mode) FROM pg_catalog.pg_locks"
    " WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() ORDER BY 2)"
    " UNION ALL SELECT 'sources', '' WHERE pg_catalog.current_setting('standard_conforming_strings') = 'off'"
    " UNION ALL (SELECT 'channel', c FROM pg_catalog.pg_listening_channels() c ORDER BY 2)"
)
OWN = " UNION ALL SELECT 'rows', concat(count(*), ' ', sum(n)) FROM public.t{0} UNION ALL SELECT 'unique rows', concat(count(*)) FROM public.u{0}"
PID = " UNION ALL SELECT 'pid', pg_catalog.pg_backend_pid()::text"
ALL = (" UNION ALL SELECT 'all settings', (SELECT pg_catalog.string_agg(name || '=' || setting, ';' ORDER BY name) FROM pg_catalog.pg_settings "
       "WHERE context IN ('user', 'superuser') AND name !~ '\\.' AND name NOT IN ('seed', 'transaction_isolation', 'transaction_read_only', 'transaction_deferrable'))")
# A server keeps these for a session: it stays with it while one is there.
# What lets notifications go.
NOTIFIES = re.compile("notify|commit|'end|burst", re.IGNORECASE)
HOLDING = {"prepared", "temporary", "lock", "cursor", "sources"}
ROUTINES = """
    CREATE FUNCTION public.sets(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('work_mem', v, false); SET lock_timeout = '7s'; SET LOCAL TimeZone = 'Asia/Tokyo'; RETURN v; END $$;
    CREATE FUNCTION public.fails(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        SET lock_timeout = '5s'; EXECUTE 'LISTEN ch1';
        BEGIN PERFORM set_config('work_mem', v, false); CREATE TEMP TABLE tt9 (n int); PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END;
        RETURN current_setting('work_mem'); END $$;
    CREATE FUNCTION public.clause() RETURNS text LANGUAGE sql SET work_mem = '2MB' AS $$ SELECT set_config('work_mem', '3MB', false) $$;
    CREATE PROCEDURE public.commits(v text) LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('work_mem', v, false); COMMIT; PERFORM set_config('lock_timeout', '6s', false); ROLLBACK; END $$;
"""
STARTS = [{}, {}, {"application_name": "again"}, {"options": "-c work_mem=3MB"}, {"client_encoding": "LATIN1"},
          {"DateStyle": "German", "options": "-c search_path=other,public -c statement_timeout=9min"}]


class Differ(Exception):
    """The first difference."""

    def __init__(self, number, what, ours, theirs):
        super().__init__(what)
        self.number, self.what, self.ours, self.theirs = number, what, ours, theirs


class Pair:
    """A client, its twin, and what the run knows of their need for a server."""

    def __init__(self, run, number, options):
        self.run, self.number, self.options = run, number, options
        self.ours = wire.Link(run.gateway, "twin", run.databases[0], options)
        self.theirs = wire.Link(run.direct, "twin", run.databases[1], options, b"_b")
        self.sides = (self.ours, self.theirs)
        self.held, self.sticky, self.state = False, False, set()
        # The server that it holds, and the one that it was last seen on.
        self.pid = self.seen = None
        self.before = "I"
        # A transaction that may be READ ONLY must begin with a statement of the primary's.
        self.must_probe = False
        # Its transactions may be READ ONLY without saying so.
        self.reads_only = False
        # Its transaction has an UNLISTEN, which a server process takes for nothing only where none has ever listened.
        self.unlistened = False

    @property
    def status(self):
        return self.theirs.status

    def holds(self):
        return self.held or self.sticky or self.status != "I"


class Run:
    """All pairs, one run of steps."""

    def __init__(self, arguments):
        self.gateway, self.admin, self.direct = (split(a) for a in (arguments.gateway, arguments.admin, arguments.direct))
        self.databases = arguments.databases.split(",")
        self.count, self.servers = arguments.clients, arguments.servers
        self.flags = set(arguments.flag or [])
        self.observer = wire.Link(self.direct, "twin", self.databases[1])
        self.functions = {name: self.look(f"SELECT '{name}'::regprocedure::oid::int")[0][0]
                          for name in ("pg_try_advisory_lock(bigint)", "set_config(text,text,boolean)")}
        self.functions = {name: int(oid) for name, oid in self.functions.items()}
        self.history, self.pairs, self.stranger = [], [], None
        self.counts = {}
        # How often a client was asked, and how often it was on another server than the time before.
        self.asked = self.moved = 0
        self.always = arguments.ask == "all"
        self.steps = 0

    def look(self, sql, link=None):
        link = link or self.observer
        link.send(wire.query(sql))
        answers = link.answers(1)
        if any(m[0] == "E" for m in answers):
            raise RuntimeError(f"{sql}: {answers}")
        return wire.rows(answers)

    def prepare(self):
        """Fresh databases and fresh connections."""
        for pair in self.pairs + ([self.stranger] if self.stranger else []):
            for side in pair.sides:
                side.vanish("terminate")
        self.settled(None, [])
        for (name,) in self.look("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            self.look(f"ROLLBACK PREPARED '{name}'")
        for number, database in enumerate(self.databases):
            link = wire.Link(self.direct, "twin", database)
            drop = self.look("SELECT coalesce(string_agg(format('DROP SCHEMA %I CASCADE', nspname), ';'), '') FROM pg_namespace "
                             "WHERE nspname IN ('public', 'other')", link)[0][0]
            self.look("SET client_min_messages = error; " + drop + ";CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC; CREATE SCHEMA other; "
                      "SELECT lo_unlink(oid) FROM pg_largeobject_metadata;"
                      "CREATE TABLE public.t (n int); INSERT INTO public.t VALUES (1), (2);"
                      "CREATE TABLE other.t (n int, m int); GRANT USAGE ON SCHEMA other TO PUBLIC; GRANT ALL ON public.t TO twin_one;"
                      + ROUTINES + "".join(f"CREATE TABLE public.t{n} (n int); GRANT ALL ON public.t{n} TO PUBLIC;"
                                f"CREATE SEQUENCE public.q{n}; GRANT ALL ON public.q{n} TO PUBLIC;"
                                f"CREATE TABLE public.u{n} (n int CONSTRAINT u{n}_k UNIQUE DEFERRABLE); GRANT ALL ON public.u{n} TO PUBLIC;"
                                for n in range(self.count + 1)), link)
            link.vanish("terminate")
        self.history = []
        self.pairs = [Pair(self, number, {}) for number in range(self.count)]
        self.stranger = Pair(self, self.count, {})
        self.defaults = None
        time.sleep(0.3)
        self.strange()

    # What is asked.

    def ask(self, pair, sql, what):
        for side in pair.sides:
            side.send(wire.query(sql))
        return self.hear(pair, 1, what)

    def hear(self, pair, ready, what, copy=(), thin=False, extended=False):
        """Compares an answer; a `thin` one without the data of a COPY."""
        answers = []
        for side in pair.sides:
            try:
                answers.append([m for m in side.answers(ready, copy, extended) if not (thin and m[0] == "d")])
            except wire.Silence as silence:
                answers.append([("silence",), *silence.args[0]])
        if answers[0] != answers[1] and not wire.same_but_for_order_of_errors(*answers):
            raise Differ(pair.number, what, *answers)
        if any(m[0] == "silence" for m in answers[0]):
            raise Differ(pair.number, what + " (no answer on both)", *answers)
        if pair.ours.parameters != pair.theirs.parameters:
            raise Differ(pair.number, "a reported parameter", *(sorted(side.parameters.items()) for side in pair.sides))
        return answers[1]

    def probe(self, pair, thorough=False):
        """Compares what a client and its twin see."""
        pair.must_probe = False
        if pair.status == "E" or not pair.theirs.alive:
            return
        sql = PROBE + OWN.format(pair.number) + (ALL if thorough else "")
        seen = []
        for side in pair.sides:
            side.send(wire.query(sql + PID))
        for side in pair.sides:
            try:
                answers = side.answers(1)
            except wire.Silence as silence:
                answers = [("silence",), *silence.args[0]]
            table = wire.rows(answers)
            pid = [row[1] for row in table if row[0] == "pid"]
            table = [row for row in table if row[0] != "pid"]
            seen.append((table or answers, side.parameters, side.status))
            if side is pair.ours and pid:
                self.asked += 1
                self.moved += pair.seen not in (None, pid[0])
                pair.pid = pair.seen = pid[0]
        if seen[0] != seen[1]:
            raise Differ(pair.number, "the state", *(([item for item in one if item not in other], reported if seen[0][1] != seen[1][1] else "", status)
                                                     for (one, reported, status), (other, *_) in ((seen[0], seen[1]), (seen[1], seen[0]))))
        pair.state = {row[0] for row in seen[1][0]} & HOLDING
        if pair.status == "I":
            pair.held = bool(pair.state)
            if not pair.holds():
                pair.pid = None
        if thorough and pair.status == "I":
            self.statements(pair)

    def statements(self, pair):
        """Which prepared statements a client has."""
        for side in pair.sides:
            side.send(b"".join(wire.message(["D", "S", name]) + wire.message(["S"]) for name in [*NAMES, CONTROL]))
        self.hear(pair, len(NAMES) + 1, "a prepared statement")

    def strange(self):
        """The stranger must see what it saw at first."""
        self.stranger.ours.send(wire.query(PROBE + ALL))
        seen = wire.rows(self.stranger.ours.answers(1)), dict(self.stranger.ours.parameters)
        if self.defaults is None:
            self.defaults = seen
        if seen != self.defaults:
            raise Differ(self.count, "what the stranger sees", *([i for i in one[0] if i not in other[0]]
                                                                 for one, other in ((seen, self.defaults), (self.defaults, seen))))

    def quiet(self):
        """Nobody is told anything unasked; what was notified is the same."""
        if self.history and NOTIFIES.search(str(self.history[-1])):
            # Servers, too, tell of it a moment later, and a client that has begun a transaction by then is told at its end.
            time.sleep(0.03)
        for pair in self.pairs:
            said = [side.quiet() for side in pair.sides]
            if said[0] != said[1]:
                time.sleep(0.05)
                said = [one + side.quiet() for one, side in zip(said, pair.sides)]
                if said[0] != said[1]:
                    raise Differ(pair.number, "what came unasked", *said)
            if not self.same_heard(pair):
                self.notified(pair)
            for side in pair.sides:
                side.heard.clear()

    def same_heard(self, pair):
        """Whether both were notified of the same, in the same order: in a burst that of each process that notified."""
        if not self.history or self.history[-1][0] != "burst":
            return [said[:2] for said in pair.ours.heard] == [said[:2] for said in pair.theirs.heard]
        by_process = {}
        for *said, pid in pair.theirs.heard:
            by_process.setdefault(pid, []).append(said)
        return merges([list(said[:2]) for said in pair.ours.heard], list(by_process.values()))

    def notified(self, pair):
        """A notification may be on its way for a moment."""
        for _ in range(100):
            time.sleep(0.01)
            for side in pair.sides:
                side.quiet()
            if self.same_heard(pair):
                return
        raise Differ(pair.number, "notifications", pair.ours.heard, pair.theirs.heard)

    # What is done. Each is one entry of the history: `[what, number, more]`.

    def do(self, what, number, more=None):
        self.history.append([what, number, more])
        self.counts[what] = self.counts.get(what, 0) + 1
        if what == "all":
            for pair in self.pairs:
                self.probe(pair, thorough=True)
            return
        if what == "each":
            for pair in self.pairs:
                # A client without a server needs a free one to be asked.
                if pair.holds() or self.free() >= 1:
                    self.probe(pair)
            return
        if what == "stranger":
            self.strange()
            return
        if what == "burst":
            self.burst(more)
            return
        getattr(self, f"do_{what}")(self.pairs[number], more)

    def do_step(self, pair, step):
        self.send(pair, step)
        self.done(pair, step)

    def send(self, pair, step):
        data, _ = encoded(step)
        for side in pair.sides:
            side.send(data)

    def done(self, pair, step):
        answers = self.hear(pair, encoded(step)[1], "the answer", step.get("copy", ()), extended="ops" in step)
        if pair.ours.status != pair.theirs.status:
            raise Differ(pair.number, "the transaction's status", pair.ours.status, pair.theirs.status)
        pair.reads_only |= b"default_transaction_read_only" in encoded(step)[0]
        pair.held |= bool(step.get("hold")) or b"standard_conforming_strings" in encoded(step)[0].lower()
        pair.sticky |= bool(step.get("sticky"))
        if any(m[0] == "C" and m[1] == b"DISCARD ALL\0" for m in answers):
            pair.held = pair.sticky = False
        begun = pair.before == "I" or any(word in encoded(step)[0] for word in (b"READ ONLY", b"BEGIN", b"START", b"CHAIN"))
        if pair.status == "T" and begun:
            pair.must_probe = "read-only" not in self.flags
        pair.before = pair.status
        return answers

    def do_probe(self, pair, thorough):
        self.probe(pair, thorough)

    def burst(self, steps):
        for number, step in steps:
            self.pairs[number].ours.send(encoded(step)[0])
        for number, step in steps:
            self.pairs[number].theirs.send(encoded(step)[0])
        for number, step in steps:
            self.done(self.pairs[number], step)

    def do_cancel(self, pair, more):
        """A statement that would run for long is cancelled."""
        mark = f"/* cancelled {pair.number} {len(self.history)} */"
        data = {
            "reads": wire.query(f"SELECT pg_sleep(20) {mark}"),
            "writes": wire.query(f"INSERT INTO public.t{pair.number} SELECT 1 FROM pg_sleep(20) {mark}"),
            "sets": wire.query(f"SET work_mem = '9MB'; SELECT pg_sleep(20) {mark}"),
            "group": b"".join(map(wire.message, [["P", "", "SET work_mem = '9MB'"], ["B", "", "", []], ["E", "", 0],
                                                 ["P", "", f"SELECT pg_sleep(20) {mark}"], ["B", "", "", []], ["E", "", 0], ["S"]])),
            # The server notices at the next row, which comes when it has asked for it.
            "in": wire.query(f"COPY public.t{pair.number} FROM STDIN {mark}"),
            # More than the buffers on the way hold.
            "out": wire.query(f"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 40000)) TO STDOUT {mark}"),
        }[more]
        for side in pair.sides:
            side.send(data)
        # At rest: a backend is active before it has told what a row is like.
        self.begun(pair, mark, "AND wait_event IN ('PgSleep', 'ClientRead', 'ClientWrite') ")
        for side in pair.sides:
            side.cancel()
        self.hear(pair, 1, "the answer to a cancelled statement", [["d", "5\n"], ["d", "6\n"], ["c"]], thin=True)

    def begun(self, pair, mark, how=""):
        """Waits until a marked statement runs on both sides, as a condition on pg_stat_activity says."""
        if pair.status in "IT":
            # A replica's may be the gateway's: it is not seen, and has had its time.
            self.eventually(lambda: int(self.look(f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' {how}AND query LIKE '%{mark}%' "
                                                  "AND query NOT LIKE '%pg_stat_activity%'")[0][0]) >= 2, 0.5)

    def do_late_cancel(self, pair, _):
        """Nothing runs: nothing is cancelled."""
        for side in pair.sides:
            side.cancel()
        time.sleep(0.005)

    def do_vanish(self, pair, more):
        """The client goes without a word, perhaps in the middle of something, and another takes its place."""
        how, at, options = more
        mark = f"vanished {pair.number} {len(self.history)}"
        data = {
            "rest": b"", "half": wire.query("SELECT 1")[:7],
            "query": wire.query(f"INSERT INTO public.t{pair.number} SELECT 77 FROM pg_sleep(0.03) /* {mark} */"),
            "read": wire.query(f"SELECT pg_sleep(0.03) /* {mark} */"),
            "copy": wire.query(f"COPY public.t{pair.number} FROM STDIN /* {mark} */") + wire.message(["d", "5\n"]),
            "group": wire.message(["P", "", f"INSERT INTO public.t{pair.number} VALUES (55) /* {mark} */"]) + wire.message(["B", "", "", []]) + wire.message(["E", "", 0]),
            "out": wire.query(f"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 9000)) TO STDOUT /* {mark} */"),
            "copying": wire.query(f"BEGIN; COPY public.t{pair.number} FROM STDIN /* {mark} */") + wire.message(["d", "5\n"]) + b"d\0\0",
            "locks": wire.query(f"SELECT pg_try_advisory_lock(3), pg_try_advisory_lock_shared(2), pg_sleep(0.01) /* {mark} */"),
            "open": wire.query(f"BEGIN; CREATE TEMP TABLE tt1 (n int); SET LOCAL ROLE twin_one; DECLARE c1 CURSOR WITH HOLD FOR SELECT 1 /* {mark} */"),
            "set": wire.query(f"SET work_mem = '9MB'; SET ROLE twin_one; LISTEN gone /* {mark} */"),
        }[at]
        for side in pair.sides:
            side.send(data)
        if at != "rest" and at != "half":
            time.sleep(0.004)
        if how == "terminate" and at in ("copy", "copying", "half"):
            how = "close"
        if how == "reset" and at == "query":
            # A reset discards what was not read yet: the row is there only if the statement had begun.
            self.begun(pair, mark)
        for side in pair.sides:
            side.vanish(how)
        self.settled(pair, [mark])
        self.pairs[pair.number] = Pair(self, pair.number, options)
        fresh = self.pairs[pair.number]
        if fresh.ours.greeting != fresh.theirs.greeting or fresh.ours.parameters != fresh.theirs.parameters:
            raise Differ(pair.number, "the greeting", *((side.greeting, sorted(side.parameters.items())) for side in fresh.sides))

    def settled(self, pair, marks):
        """Waits until what a vanished client left is over: its twin's backend gone, its server at rest or gone."""
        gone = str(pair.theirs.pid) if pair else "0"
        ours = (pair.pid if pair and pair.holds() else None) or "0"
        like = " OR ".join(f"(state = 'active' AND query LIKE '%{mark} *%' AND query NOT LIKE '%pg_stat_activity%')" for mark in marks) or "false"
        # A server that still has locks has not been reset.
        locks = "EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory')"
        sql = (f"SELECT count(*) FROM pg_stat_activity a WHERE pid = {gone} OR {like} OR (pid = {ours} AND (state <> 'idle' OR {locks}))"
               + ("" if pair else f" OR (datname IN ('{self.databases[0]}', '{self.databases[1]}') AND pid <> pg_backend_pid() AND usename = 'twin' "
                  f"AND (state <> 'idle' OR {locks}))"))
        # The gateway counts a session until its server is at rest.
        others = len(self.pairs) if pair else 0
        self.eventually(lambda: self.sessions() <= others and self.look(sql) == [("0",)], 10)

    def sessions(self):
        """How many the gateway has."""
        return sum(int(line.rsplit(b" ", 1)[1]) for line in self.metrics() if line.startswith(b"pointsman_sessions{"))

    def metrics(self):
        with socket.create_connection(self.admin, timeout=wire.PATIENCE) as link:
            link.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: link.recv(65536), b""))
        return text.splitlines()

    def eventually(self, holds, seconds):
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            time.sleep(0.002)

    # The run.

    def free(self):
        """Servers that nobody holds."""
        return self.servers - sum(pair.holds() for pair in self.pairs)

    def release(self, rng, draw):
        """A step after which a client that holds its server needs it less, or not at all."""
        pair = rng.choice([pair for pair in self.pairs if pair.holds()])
        if pair.status != "E" and rng.random() < 0.2:
            self.then = []
            return ["probe", pair.number, False]
        self.then = [["probe", pair.number, False]]
        return ["step", pair.number, draw.release(pair.status, () if pair.sticky else pair.state)]

    def may(self, pair, step):
        """Whether a step begins no transaction that is READ ONLY and has its first statement in the same step, and asks for nothing
        that hangs on what a server process did for others."""
        if pair.unlistened and pair.status != "I" and "PREPARE TRANSACTION" in str(step):
            return False
        if not pair.reads_only or "read-only" in self.flags:
            return True
        ops = step.get("ops", ())
        begins = any(op[0] in "PB" and (op[1] == CONTROL or CONTROL in op[2:3] or op[2].startswith(("BEGIN", "START"))) for op in ops)
        return not step.get("sql", "").startswith("BEGIN;") and not (begins and sum(op[0] == "E" for op in ops) > 1)

    def draw(self, rng, draw):
        """What happens next."""
        if self.free() < 1:
            return self.release(rng, draw)
        pair = rng.choice(self.pairs)
        if pair.must_probe:
            return ["probe", pair.number, False]
        chance = rng.random()
        if chance < 0.04:
            return ["all", 0, None]
        if chance < 0.2:
            return ["stranger", 0, None]
        if chance < 0.23 and (not pair.holds() or pair.pid and pair.status != "E"):
            at = rng.choice(["rest", "rest", "half", "query", "read", "copy", "copying", "group", "out", "set", "locks", "open"])
            return ["vanish", pair.number, [rng.choice(["reset", "close", "terminate"]), at, rng.choice(STARTS)]]
        if chance < 0.237:
            return ["cancel", pair.number, rng.choice(["reads", "writes", "sets", "group", "in", "out"])]
        if chance < 0.242:
            return ["late_cancel", pair.number, None]
        if chance < 0.30:
            ready = [p for p in rng.sample(self.pairs, rng.randrange(2, self.count + 1)) if not p.must_probe]
            steps = [[p.number, draw.step(p.number, p.status, lambda s, p=p: self.may(p, s) and "shared" not in s and "pg_sleep" not in str(s) and "PREPARE TRANSACTION" not in str(s) and (p.holds() or "hold" not in s))]
                     for p in ready]
            self.then = [["probe", p.number, False] for p in ready if rng.random() < 0.3]
            return ["burst", 0, steps]
        step = draw.step(pair.number, pair.status, lambda s: self.may(pair, s))
        pair.unlistened = pair.unlistened and pair.status != "I" or "UNLISTEN" in str(step)
        if "PREPARE TRANSACTION" in str(step):
            # Its locks would be in the way of the client itself.
            self.then = [["step", pair.number, {"sql": f"{rng.choice(['COMMIT', 'ROLLBACK'])} PREPARED 'twin {pair.number} {wire.SIDE}'"}]]
        self.after = pair
        return ["step", pair.number, step]

    def hunt(self, seed, steps, seconds):
        rng = random.Random(seed)
        draw = Draw(rng, self.flags, self.functions)
        self.prepare()
        start = told = time.monotonic()
        self.then, self.after = [], None
        while self.steps < steps and not (seconds and time.monotonic() - start > seconds):
            self.after = None
            entry = self.then.pop(0) if self.then else self.draw(rng, draw)
            self.steps += len(entry[2]) if entry[0] == "burst" else entry[0] not in ("probe", "all", "stranger")
            self.do(*entry)
            if self.always and entry[0] not in ("probe", "all", "stranger"):
                self.do("each", 0)
                self.then = [more for more in self.then if more[0] != "probe"]
            elif self.after:
                pair = self.after
                ask = rng.random()
                if ask < (0.75 if pair.status == "I" else 0.35) and pair.status != "E":
                    self.then += [["probe", pair.number, ask < 0.05]]
            self.quiet()
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"twins: seed {seed}, {self.steps} steps, {self.steps / (told - start):.0f} a second", flush=True)
        while self.free() < 1:
            # Those who hold none need one to be asked.
            for entry in (self.release(rng, draw), *self.then):
                self.do(*entry)
        self.do("all", 0)
        self.quiet()
        seconds = time.monotonic() - start
        print(f"twins: seed {seed}, {self.steps} steps of {self.count} clients on {self.servers} servers, no difference; {seconds:.0f} s, "
              f"{self.steps / seconds:.0f} steps a second; {self.asked} times a client was asked, {self.moved} times "
              f"({100 * self.moved // max(1, self.asked)} %) on another server than the time before; {self.counts}")

    def replay(self, history):
        """Runs a written history; the difference it ends in, if any."""
        self.prepare()
        try:
            for entry in history:
                if entry[0] in ("all", "each", "stranger", "burst") or self.pairs[entry[1]].theirs.alive:
                    self.do(*entry)
                    self.quiet()
        except Differ as difference:
            return difference
        return None


def encoded(step):
    """The bytes of a step, and how many ReadyForQuery answer it."""
    if "sql" in step:
        return wire.query(step["sql"]), 1
    return b"".join(wire.message(op) for op in step["ops"]), sum(op[0] in "SF" for op in step["ops"])


def merges(whole, parts):
    """Whether a list is made of these, each in its own order."""
    parts = [part for part in parts if part]
    if not whole or not parts:
        return not whole and not parts
    return any(part[0] == whole[0] and merges(whole[1:], [other if other is not part else part[1:] for other in parts]) for part in parts)


def split(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def reduce(run, history, difference):
    """Leaves out what is not needed for the same difference, in ever smaller pieces."""

    def same(candidate):
        found = run.replay(candidate)
        return found is not None and found.what == difference.what and list(run.history) or None

    def mine(entry):
        return entry[1] == difference.number or entry[0] in ("burst", "stranger") and entry is history[-1]

    history = same([entry for entry in history if mine(entry)]) or same(history) or history
    size = max(1, len(history) // 2)
    while size:
        at = len(history) - 1 - size
        while at > -size:
            history = same(history[:max(0, at)] + history[at + size:]) or history
            at = min(at - size, len(history) - 1 - size)
        size //= 2
    return history, run.replay(history)


def tell(run, seed, history, difference, whole=False):
    print(f"\nseed {seed}, step {run.steps} (entry {len(history)}), client {difference.number}: {difference.what} differs")
    show = wire.show if isinstance(difference.ours, list) and difference.ours and isinstance(difference.ours[0], tuple) and len(difference.ours[0][0]) == 1 else str
    print(f"  through the gateway: {show(difference.ours)}\n  direct:              {show(difference.theirs)}\nwhat led to it:")
    for index, (what, who, more) in enumerate(history):
        mine = who == difference.number or what == "burst" and any(n == difference.number for n, _ in more)
        if whole or mine and index > len(history) - 400 or index >= len(history) - 10:
            print(f"  {index + 1:>6}  {what} {who}  {more}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("gateway", "admin", "direct", "databases"):
        parser.add_argument(f"--{name}", required=True)
    for name, value in (("seed", int(time.time())), ("steps", 1000), ("clients", 7), ("servers", 4), ("seconds", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ask", choices=["some", "all"], default="some")
    parser.add_argument("--flag", action="append", choices=FLAGS)
    parser.add_argument("--replay")
    parser.add_argument("--reduce", action="store_true")
    parser.add_argument("--write")
    arguments = parser.parse_args()
    print(f"twins: seed {arguments.seed}, {arguments.steps} steps", flush=True)
    run = Run(arguments)
    if arguments.replay:
        with open(arguments.replay) as file:
            history = json.load(file)
        difference = run.replay(history)
        if difference is None:
            print("no difference")
            return 0
        history = run.history
    else:
        try:
            run.hunt(arguments.seed, arguments.steps, arguments.seconds)
            return 0
        except Differ as found:
            difference, history = found, run.history
            print(*(line.decode() for line in run.metrics() if line.startswith(b"pointsman_sessions")), sep="\n")
            print("who holds a server:", {pair.number: (pair.status, pair.held, pair.sticky, pair.state) for pair in run.pairs if pair.holds()})
    tell(run, arguments.seed, history, difference)
    if arguments.reduce:
        history, again = reduce(run, list(history), difference)
        if again is None:
            print("the difference does not come again")
        else:
            tell(run, arguments.seed, history, again, whole=True)
    if arguments.write:
        with open(arguments.write, "w") as file:
            json.dump(history, file)
    return 1


if __name__ == "__main__":
    sys.exit(main())
