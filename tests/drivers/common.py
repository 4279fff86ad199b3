"""What the tests of Python drivers share: how they are run and told, and a migration under traffic.

`POINTSMAN_TEST_URL` is what is under test. `POINTSMAN_TEST_NODES` names the servers themselves, the primary first: what
is compared with a direct connection goes there, and tests whose connections follow each other wait for the replicas.
"""

import asyncio
import collections
import inspect
import os
import sys
import threading
import time
import traceback

import psycopg

URL = os.environ["POINTSMAN_TEST_URL"]
NODES = os.environ.get("POINTSMAN_TEST_NODES", "").split()

# How long a migration meets traffic.
SECONDS = float(os.environ.get("POINTSMAN_TEST_SECONDS", "2.5"))


def run(title, tests, finish=lambda: None):
    """Runs each test, says `ok NAME` or `FAILED NAME`, and ends the process: with 1 if one failed."""
    wanted = sys.argv[1:]
    tests = [test for test in tests if not wanted or test.__name__ in wanted]
    failed = 0
    for test in tests:
        started = time.monotonic()
        try:
            if inspect.iscoroutinefunction(test):
                asyncio.run(test())
            else:
                test()
            print(f"ok      {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001: every failure is told
            failed += 1
            print(f"FAILED  {test.__name__}: {error!r}")
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
    print(f"{title}: {len(tests) - failed} of {len(tests)} passed")
    # Threads of a driver's that hang must not keep a failure from being told.
    sys.stdout.flush()
    finish()
    os._exit(1 if failed else 0)


def sql(text, *values):
    """One statement on a connection of its own; its rows, if it has any."""
    with psycopg.connect(URL, autocommit=True) as connection:
        cursor = connection.execute(text, values or None)
        return cursor.fetchall() if cursor.description else None


def settled():
    """Waits until the replicas have all that was committed: a session that has not written reads from them."""
    if not NODES:
        return
    with psycopg.connect(NODES[0], autocommit=True) as primary:
        (position,) = primary.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    for node in NODES[1:]:
        with psycopg.connect(node, autocommit=True) as replica:
            until = time.monotonic() + 30
            while not replica.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone()[0]:
                assert time.monotonic() < until, f"{node} does not catch up"
                time.sleep(0.01)


def together(count, work):
    """Runs `work(0)` to `work(count - 1)` in threads; the first failure is raised."""
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001: raised below
            traceback.print_exc(file=sys.stdout)
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[number], daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


class Traffic:
    """A table that is migrated while others use it, and what they saw: `work(traffic, number)` is given until `over()`.

    Rows: `id` from 1 to 50, `n` counts writes, `label` is always `'row ' || id`, `v` is always `id * 10`.
    """

    def __init__(self, url, table):
        self.url, self.table = url, table
        self.failed = collections.Counter()
        self.written = collections.Counter()
        self.reads = 0
        self.stop = threading.Event()
        self.steps = 0

    def over(self):
        return self.stop.is_set()

    def failure(self, kind):
        """A statement failed with this SQLSTATE, or this exception of the driver's own."""
        self.failed[kind] += 1

    def check(self, id, label, v):
        """A row was read, and these are its values."""
        assert label == f"row {id}" and v == id * 10, f"row {id} came as {label!r}, {v!r}"
        self.reads += 1

    def migrate(self):
        with psycopg.connect(self.url, autocommit=True) as connection:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                for step in [
                    f"ALTER TABLE {self.table} ADD COLUMN more text DEFAULT 'x'",
                    f"ALTER TABLE {self.table} ALTER COLUMN v TYPE bigint",
                    f"CREATE INDEX CONCURRENTLY {self.table}_n ON {self.table} (n)",
                    f"ALTER TABLE {self.table} DROP COLUMN more",
                    f"ALTER TABLE {self.table} ALTER COLUMN v TYPE int",
                    f"DROP INDEX CONCURRENTLY {self.table}_n",
                ]:
                    connection.execute(step)
                    self.steps += 1
                    time.sleep(0.08)

    def run(self, work, workers):
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {self.table} (id int PRIMARY KEY, n int, label text, v int)")
            connection.execute(f"INSERT INTO {self.table} SELECT i, 0, 'row ' || i, i * 10 FROM generate_series(1, 50) i")
        settled()

        def part(number):
            try:
                if number == workers:
                    self.migrate()
                elif inspect.iscoroutinefunction(work):
                    asyncio.run(work(self, number))
                else:
                    work(self, number)
            finally:
                self.stop.set()

        together(workers + 1, part)
        settled()
        with psycopg.connect(self.url, autocommit=True) as connection:
            (total,) = connection.execute(f"SELECT sum(n) FROM {self.table}").fetchone()
        # What was acknowledged is there, once; what failed is not there.
        assert total == sum(self.written.values()), f"{total} writes are there, {sum(self.written.values())} were acknowledged"
        assert self.steps >= 6 and self.reads > 10 and total > 10, (self.steps, self.reads, total)


def migration(work, expected=(), workers=5, tables=("migrated", "migrated_directly")):
    """The same traffic here and on the primary at once. What fails here must fail there, or be `expected`: something
    that a direct connection brings as well, but not in every run."""
    ours = Traffic(URL, tables[0])
    theirs = Traffic(NODES[0], tables[1]) if NODES else None
    pair = [ours, theirs] if theirs else [ours]
    together(len(pair), lambda number: pair[number].run(work, workers))
    for name, traffic in zip(["here", "direct"], pair):
        print(f"        {name}: {traffic.steps} steps, {traffic.reads} reads, {sum(traffic.written.values())} writes, "
              f"failed: {dict(traffic.failed)}")
    known = set(expected) | set(theirs.failed if theirs else ours.failed)
    assert set(ours.failed) <= known, f"fails here alone: {set(ours.failed) - known}"
