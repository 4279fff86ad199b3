"""psycopg 3 doing real work through the connection string POINTSMAN_TEST_URL. Says what failed, exit code 1 then."""

import asyncio
import os
import sys
import threading
import time
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from common import settled
from psycopg.types.json import Jsonb

URL = os.environ["POINTSMAN_TEST_URL"]


def connect(**options):
    return psycopg.connect(URL, **options)


def types():
    with connect() as connection:
        values = [
            True, 7, 2**40, 1.5, Decimal("12.340"), "naïve 'quote' \U0001f682", b"\x00\xff", date(2024, 2, 29),
            datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc), timedelta(days=3, seconds=4), uuid.UUID(int=5),
            [1, 2, 3], None,
        ]
        for binary in (False, True):
            for value in values:
                found = connection.cursor(binary=binary).execute("SELECT %s", [value]).fetchone()[0]
                assert found == value, f"{value!r} came back as {found!r} (binary={binary})"
        found = connection.execute("SELECT %s::text[]", [["a", None]]).fetchone()[0]
        assert found == ["a", None], found
        found = connection.execute("SELECT %s", [Jsonb({"a": [1, None]})]).fetchone()[0]
        assert found == {"a": [1, None]}, found


def prepared_statements():
    with connect(autocommit=True) as setup:
        setup.execute("CREATE TABLE p (n int PRIMARY KEY, v int)")
        setup.execute("INSERT INTO p SELECT n, 0 FROM generate_series(1, 50) n")

    failures = []

    def work(session):
        try:
            # Prepared at the first execution, and by the driver's own names, which are alike in all sessions.
            with connect(autocommit=True, prepare_threshold=0) as connection:
                for n in range(1, 26):
                    connection.execute("UPDATE p SET v = v + 1 WHERE n = %s", [n])
                    row = connection.execute("SELECT n, %s::int FROM p WHERE n = %s", [session, n]).fetchone()
                    assert row == (n, session), row
                    with connection.transaction():
                        connection.execute(f"SELECT {session} + %s", [n], prepare=True)
                        connection.execute("UPDATE p SET v = v + 1 WHERE n = %s", [n])
        except Exception as error:  # noqa: BLE001: told below
            failures.append((session, repr(error)))

    threads = [threading.Thread(target=work, args=[session]) for session in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    with connect() as connection:
        total = connection.execute("UPDATE p SET v = v WHERE true RETURNING v").fetchall()
        assert sum(v for (v,) in total) == 8 * 25 * 2, total


def transactions():
    with connect() as connection:
        connection.execute("CREATE TABLE t (n int UNIQUE)")
        connection.commit()
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (1)")
            try:
                with connection.transaction():
                    connection.execute("INSERT INTO t VALUES (1)")
            except errors.UniqueViolation:
                pass
            else:
                raise AssertionError("the key was not checked")
            connection.execute("INSERT INTO t VALUES (2)")
        connection.execute("INSERT INTO t VALUES (3)")
        connection.rollback()
        assert connection.execute("SELECT array_agg(n ORDER BY n) FROM t").fetchone()[0] == [1, 2]
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        assert connection.execute("SHOW transaction_isolation").fetchone()[0] == "serializable"
        connection.commit()
        connection.isolation_level = None
        connection.read_only = True
        try:
            connection.execute("INSERT INTO t VALUES (9)")
        except errors.ReadOnlySqlTransaction:
            connection.rollback()
        else:
            raise AssertionError("a read-only transaction wrote")


def error_reports():
    with connect(autocommit=True) as connection:
        try:
            connection.execute("SELECT 1/0")
        except errors.DivisionByZero as error:
            assert error.diag.sqlstate == "22012", error.diag.sqlstate
        else:
            raise AssertionError("1/0 had a result")
        try:
            connection.execute("SELECT * FROM nowhere")
        except errors.UndefinedTable as error:
            assert error.diag.statement_position == "15", error.diag.statement_position
        assert connection.execute("SELECT 7").fetchone() == (7,)
        notices = []
        connection.add_notice_handler(lambda diag: notices.append(diag.message_primary))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
        assert notices == ["hello"], notices


def copy():
    with connect() as connection:
        connection.execute("CREATE TABLE c (n int, s text)")
        with connection.cursor().copy("COPY c FROM STDIN") as sink:
            for n in range(5000):
                sink.write_row((n, f"row {n}"))
        with connection.cursor().copy("COPY c TO STDOUT (FORMAT binary)") as source:
            source.set_types(["int4", "text"])
            rows = list(source.rows())
        assert len(rows) == 5000 and rows[4999] == (4999, "row 4999"), rows[-1]
        try:
            with connection.cursor().copy("COPY c FROM STDIN") as sink:
                sink.write_row((1, "x"))
                raise KeyError("the application fails")
        except KeyError:
            connection.rollback()


def cursors():
    with connect() as connection:
        with connection.cursor(name="server_side") as cursor:
            cursor.execute("SELECT generate_series(1, 1000)")
            assert len(cursor.fetchmany(10)) == 10
            assert len(cursor.fetchall()) == 990
        connection.execute("SELECT 1")
        connection.commit()
        rows = list(connection.cursor().stream("SELECT generate_series(1, 500)"))
        assert len(rows) == 500
        assert connection.cursor(row_factory=dict_row).execute("SELECT 1 AS a").fetchone() == {"a": 1}


def pipelines():
    with connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE q (n int PRIMARY KEY)")
        with connection.pipeline():
            cursors = [connection.execute("INSERT INTO q VALUES (%s) RETURNING n", [n]) for n in range(100)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(100))
        try:
            with connection.pipeline():
                connection.execute("INSERT INTO q VALUES (1000)")
                connection.execute("INSERT INTO q VALUES (5)")
                connection.execute("INSERT INTO q VALUES (1001)")
        except errors.UniqueViolation:
            pass
        else:
            raise AssertionError("the pipeline's error was lost")
        with connection.pipeline() as pipeline:
            first = connection.execute("SELECT count(*) FROM q WHERE n < 100")
            pipeline.sync()
            second = connection.execute("SELECT 'still here'")
        assert first.fetchone() == (100,) and second.fetchone() == ("still here",)
        connection.cursor().executemany("INSERT INTO q VALUES (%s)", [[n] for n in range(2000, 2100)])
    # Transactions inside pipelines and around them: reads ahead of writes, a Flush behind a Sync.
    for n in range(3000, 3006):
        with connect() as connection:
            with connection.pipeline():
                assert connection.execute("SELECT count(*) > 0 FROM q").fetchone() == (True,)
                connection.execute("INSERT INTO q VALUES (%s)", [n])
            connection.commit()
        with connect(autocommit=True) as connection, connection.pipeline():
            assert connection.execute("SELECT count(*) > 0 FROM q").fetchone() == (True,)
            connection.execute("INSERT INTO q VALUES (%s)", [n + 1000])
        with connect(autocommit=True) as connection, connection.pipeline():
            with connection.transaction():
                connection.execute("SELECT count(*) FROM q")
            with connection.transaction():
                assert connection.execute("SELECT count(*) > 0 FROM q").fetchone() == (True,)
                connection.execute("INSERT INTO q VALUES (%s)", [-n])
    # Another session: what the ones before wrote it finds on replicas that have it.
    settled()
    with connect(autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM q WHERE abs(n) BETWEEN 3000 AND 3005").fetchone() == (12,)


def session_settings():
    with connect(autocommit=True) as one, connect(autocommit=True) as two:
        one.execute("SET statement_timeout = '12345ms'")
        two.execute("SET statement_timeout = '54321ms'")
        one.execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(20):
            assert one.execute("SHOW statement_timeout").fetchone() == ("12345ms",)
            assert two.execute("SHOW statement_timeout").fetchone() == ("54321ms",)
        assert one.info.parameter_status("TimeZone") == "Asia/Tokyo"
        assert str(one.info.timezone) == "Asia/Tokyo"
        one.execute("RESET statement_timeout")
        assert one.execute("SHOW statement_timeout").fetchone() == ("0",)
        # A temporary table lives as long as its session.
        one.execute("CREATE TEMP TABLE mine (n int)")
        for n in range(10):
            two.execute("SELECT 1")
            one.execute("INSERT INTO mine VALUES (%s)", [n])
        assert one.execute("SELECT count(*) FROM mine").fetchone() == (10,)


def notifications():
    with connect(autocommit=True) as listener, connect(autocommit=True) as speaker:
        listener.execute("LISTEN psycopg_news")
        speaker.execute("SELECT pg_notify('psycopg_news', 'arrived')")
        heard = list(listener.notifies(timeout=20, stop_after=1))
        assert [(n.channel, n.payload) for n in heard] == [("psycopg_news", "arrived")], heard
        heard = []
        listener.add_notify_handler(heard.append)
        for n, sender in enumerate([speaker, listener, speaker]):
            sender.execute("NOTIFY psycopg_news")
            deadline = time.monotonic() + 20
            while len(heard) <= n and time.monotonic() < deadline:
                listener.execute("SELECT 1")
            assert [n.pid for n in heard[n:]] == [sender.info.backend_pid], heard
    # Names and payloads beyond ASCII, in another encoding than the speaker's.
    with connect(autocommit=True, client_encoding="latin1") as listener, connect(autocommit=True) as speaker:
        listener.execute('LISTEN "Grüße \"\"x\"\""')
        for n in range(20):
            speaker.execute("SELECT pg_notify(%s, %s)", ['Grüße "x"', f"größer {n}"])
        heard = list(listener.notifies(timeout=20, stop_after=20))
        assert [(n.channel, n.payload) for n in heard] == [('Grüße "x"', f"größer {n}") for n in range(20)], heard
        listener.execute("UNLISTEN *")
        assert listener.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)


def cancellation():
    with connect(autocommit=True) as connection:
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        try:
            connection.execute("SELECT pg_sleep(60)")
        except errors.QueryCanceled:
            pass
        else:
            raise AssertionError("not cancelled")
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def asynchronous():
    async def work(n):
        async with await psycopg.AsyncConnection.connect(URL) as connection:
            for i in range(10):
                async with connection.transaction():
                    cursor = await connection.execute("SELECT %s::int + %s::int", [n, i])
                    assert await cursor.fetchone() == (n + i,)

    async def main():
        await asyncio.gather(*(work(n) for n in range(10)))

    asyncio.run(main())


TESTS = [types, prepared_statements, transactions, error_reports, copy, cursors, pipelines, session_settings,
         notifications, cancellation, asynchronous]
failed = 0
for test in TESTS:
    try:
        test()
        print(f"ok      {test.__name__}")
    except Exception as error:  # noqa: BLE001: every failure is told
        import traceback

        failed += 1
        print(f"FAILED  {test.__name__}: {error!r}")
        traceback.print_exc(file=sys.stdout)
print(f"psycopg {psycopg.__version__}: {len(TESTS) - failed} of {len(TESTS)} passed")
sys.exit(1 if failed else 0)
