"""asyncpg doing real work: it prepares all it runs, caches statements, and resets connections as its pool takes them back."""

import asyncio
import datetime
import decimal
import uuid

import asyncpg
from common import URL, migration, run, settled, sql


async def types():
    connection = await asyncpg.connect(URL)
    await connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b mood)")
    values = {
        "bool": True, "int2": -7, "int4": -(2**31), "int8": 2**62, "float8": 0.1, "numeric": decimal.Decimal("12.340"),
        "text": "naïve 'quote' \U0001f682", "bytea": bytes(range(256)), "date": datetime.date(2024, 2, 29),
        "timestamptz": datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc),
        "interval": datetime.timedelta(days=3, seconds=4), "uuid": uuid.UUID(int=5), "int[]": [1, None, 3],
        "text[][]": [["a"], ["b"]], "int4range": asyncpg.Range(1, 5), "inet": __import__("ipaddress").ip_address("::1"),
    }
    for name, value in values.items():
        found = await connection.fetchval(f"SELECT $1::{name}", value)
        assert found == value, f"{name}: {value!r} came back as {found!r}"
    assert await connection.fetchval("SELECT $1::text", None) is None
    # Types of the database's own: the driver looks them up by a large recursive query, once a connection.
    assert await connection.fetchval("SELECT $1::pair", (1, "happy")) == (1, "happy")
    assert await connection.fetchval("SELECT $1::mood[]", ["sad", "happy"]) == ["sad", "happy"]
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=__import__("json").dumps,
                                    decoder=__import__("json").loads)
    assert await connection.fetchval("SELECT $1::jsonb", {"a": [1, None]}) == {"a": [1, None]}
    await connection.close()


async def statement_caches():
    await asyncio.to_thread(sql, "CREATE TABLE s (n int PRIMARY KEY, v int)")
    await asyncio.to_thread(sql, "INSERT INTO s SELECT n, 0 FROM generate_series(1, 50) n")
    await asyncio.to_thread(settled)

    async def work(session):
        # A small cache: the driver closes statements as it goes on. Its names are the same in every session.
        connection = await asyncpg.connect(URL, statement_cache_size=5)
        own = await connection.prepare(f"SELECT n, {session}, $2::text FROM s WHERE n = $1")
        for n in range(1, 21):
            assert tuple(await own.fetchrow(n, "x")) == (n, session, "x")
            assert await connection.fetchval(f"SELECT {session} * 1000 + {n % 9} + $1", n) == session * 1000 + n % 9 + n
            await connection.execute("UPDATE s SET v = v + 1 WHERE n = $1", n)
            async with connection.transaction():
                assert await connection.fetchval("UPDATE s SET v = v + 1 WHERE n = $1 RETURNING n", n) == n
                assert tuple(await own.fetchrow(n, None)) == (n, session, None)
        await connection.close()

    await asyncio.gather(*(work(session) for session in range(12)))
    connection = await asyncpg.connect(URL)
    assert await connection.fetchval("SELECT sum(v) FROM s") in (12 * 20 * 2,) or await catches_up(connection)
    await connection.close()


async def catches_up(connection):
    await asyncio.to_thread(settled)
    return await connection.fetchval("SELECT sum(v) FROM s") == 12 * 20 * 2


async def another_ones_ddl():
    one, other = await asyncpg.connect(URL), await asyncpg.connect(URL)
    crowd = [await asyncpg.connect(URL) for _ in range(4)]
    await other.execute("CREATE TABLE d (id int PRIMARY KEY, v int, label text)")
    await other.execute("INSERT INTO d VALUES (1, 10, 'one')")
    await asyncio.to_thread(settled)
    # What it asks for stays what it is, whatever becomes of the table. (A statement whose own columns change is another
    # matter: a server that prepares it afterwards says nothing of the change.)
    read = "SELECT id, v::text, label FROM d WHERE id = $1"
    expected = (1, "10", "one")
    for step in [
        "SELECT 1", "ALTER TABLE d ALTER COLUMN v TYPE bigint", "ALTER TABLE d ADD COLUMN more text DEFAULT 'more'",
        "ALTER TABLE d ALTER COLUMN v TYPE text", "CREATE INDEX CONCURRENTLY d_v ON d (v)", "ALTER TABLE d DROP COLUMN more",
        "ALTER TABLE d ALTER COLUMN v TYPE int USING v::int",
    ]:
        await other.execute(step)
        await asyncio.to_thread(settled)
        for _ in range(8):
            held = [asyncio.ensure_future(each.fetchrow(read, 1)) for each in crowd]
            found = await one.fetchrow(read, 1)
            assert tuple(found) == expected, f"after {step}: {found}"
            for each in held:
                assert tuple(await each) == expected, f"after {step}: {each}"
        for each in [one, *crowd]:
            async with each.transaction():
                assert tuple(await each.fetchrow(read, 1)) == expected, f"in a transaction after {step}"
    for connection in [one, other, *crowd]:
        await connection.close()


async def transactions():
    connection = await asyncpg.connect(URL)
    await connection.execute("CREATE TABLE t (n int UNIQUE)")
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES ($1)", 1)
        except asyncpg.UniqueViolationError as error:
            assert error.constraint_name == "t_n_key", error.constraint_name
        else:
            raise AssertionError("the key was not checked")
        await connection.execute("INSERT INTO t VALUES ($1)", 2)
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES ($1)", 3)
            raise KeyError("the application fails")
    except KeyError:
        pass
    assert await connection.fetchval("SELECT array_agg(n ORDER BY n) FROM t") == [1, 2]
    async with connection.transaction(isolation="serializable", readonly=True, deferrable=True):
        assert await connection.fetchval("SHOW transaction_isolation") == "serializable"
        assert await connection.fetchval("SELECT count(*) FROM t") == 2
    try:
        async with connection.transaction(readonly=True):
            await connection.execute("INSERT INTO t VALUES (9)")
    except asyncpg.ReadOnlySQLTransactionError:
        pass
    else:
        raise AssertionError("a read-only transaction wrote")
    assert not connection.is_in_transaction()
    await connection.close()


async def batches_and_copy():
    connection = await asyncpg.connect(URL)
    await connection.execute("CREATE TABLE b (n int PRIMARY KEY, s text)")
    await connection.executemany("INSERT INTO b VALUES ($1, $2)", [(n, f"row {n}") for n in range(2000)])
    try:
        await connection.executemany("INSERT INTO b VALUES ($1, $2)", [(n, "again") for n in range(3000, 1000, -1)])
    except asyncpg.UniqueViolationError:
        pass
    else:
        raise AssertionError("a batch's error was lost")
    # A batch is one transaction: nothing of it remains.
    assert await connection.fetchval("SELECT count(*) FROM b") == 2000
    assert await connection.fetchmany("INSERT INTO b VALUES ($1, 'many') RETURNING n", [(n,) for n in range(5000, 5010)]) \
        == [(n,) for n in range(5000, 5010)]
    await connection.copy_records_to_table("b", records=[(n, "copied") for n in range(10000, 15000)])
    chunks = []

    async def take(chunk):
        chunks.append(bytes(chunk))

    await connection.copy_from_query("SELECT n FROM b WHERE n >= $1 ORDER BY n", 10000, output=take)
    assert b"".join(chunks).split() == [str(n).encode() for n in range(10000, 15000)]
    try:
        await connection.copy_records_to_table("b", records=[(1, "again")])
    except asyncpg.UniqueViolationError:
        pass
    else:
        raise AssertionError("a COPY's error was lost")
    assert await connection.fetchval("SELECT count(*) FROM b") == 7010
    await connection.close()


async def cursors():
    connection = await asyncpg.connect(URL)
    async with connection.transaction():
        count = 0
        async for record in connection.cursor("SELECT generate_series(1, $1::int)", 1000, prefetch=37):
            count += 1
            assert record[0] == count
        assert count == 1000
        cursor = await connection.cursor("SELECT generate_series(1, 100)")
        assert await cursor.forward(10) == 10
        assert [row[0] for row in await cursor.fetch(3)] == [11, 12, 13]
        assert await connection.fetchval("SELECT 7") == 7
        assert (await cursor.fetchrow())[0] == 14
    async with connection.transaction(readonly=True):
        assert len([row async for row in connection.cursor("SELECT generate_series(1, 500)", prefetch=50)]) == 500
    await connection.close()


async def notifications():
    listener, speaker = await asyncpg.connect(URL), await asyncpg.connect(URL)
    heard = asyncio.Queue()
    await listener.add_listener("asyncpg_news", lambda _c, _pid, channel, payload: heard.put_nowait((channel, payload)))
    await speaker.execute("SELECT pg_notify('asyncpg_news', $1)", "arrived")
    assert await asyncio.wait_for(heard.get(), 20) == ("asyncpg_news", "arrived")
    async with speaker.transaction():
        await speaker.execute("NOTIFY asyncpg_news, 'in a transaction'")
    assert await asyncio.wait_for(heard.get(), 20) == ("asyncpg_news", "in a transaction")
    await listener.reset()
    await speaker.execute("NOTIFY asyncpg_news, 'nobody listens'")
    await asyncio.sleep(0.2)
    assert heard.empty()
    await listener.close()
    await speaker.close()


async def time_limits():
    connection = await asyncpg.connect(URL)
    for _ in range(5):
        # The driver cancels by a request of its own, and goes on with the same connection.
        try:
            await connection.fetch("SELECT pg_sleep(60)", timeout=0.1)
        except asyncio.TimeoutError:
            pass
        else:
            raise AssertionError("not cancelled")
        assert await connection.fetchval("SELECT 1") == 1
    await connection.execute("SET statement_timeout = '50ms'")
    try:
        await connection.execute("SELECT pg_sleep(60)")
    except asyncpg.QueryCanceledError:
        pass
    await connection.execute("RESET statement_timeout")
    task = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    assert await connection.fetchval("SELECT 2") == 2
    await connection.close()


async def pool_with_reset():
    await asyncio.to_thread(sql, "CREATE TABLE w (n serial PRIMARY KEY, session int)")
    # What the pool sends as it takes a connection back: pg_advisory_unlock_all, CLOSE ALL, UNLISTEN *, RESET ALL.
    async with asyncpg.create_pool(URL, min_size=4, max_size=12) as pool:

        async def work(task):
            for turn in range(5):
                async with pool.acquire() as connection:
                    assert await connection.fetchval("SHOW work_mem") == "4MB", "another task's setting"
                    assert await connection.fetchval("SHOW search_path") == '"$user", public'
                    await connection.execute(f"SET work_mem = '{task + 100}kB'")
                    if turn % 3 == 0:
                        await connection.fetchval("SELECT pg_advisory_lock($1)", task)
                    if turn % 4 == 0:
                        await connection.execute("SET search_path = 'pg_catalog'")
                    await connection.execute("INSERT INTO public.w (session) VALUES ($1)", task)
                    async with connection.transaction():
                        assert await connection.fetchval("SELECT count(*) FROM public.w WHERE session = $1", task) == turn + 1
                        assert await connection.fetchval("SHOW work_mem") == f"{task + 100}kB"
                        await connection.execute("SET LOCAL work_mem = '1MB'")
                    assert await connection.fetchval("SHOW work_mem") == f"{task + 100}kB"

        await asyncio.gather(*(work(task) for task in range(20)))
        async with pool.acquire() as connection:
            assert await connection.fetchval(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
                "WHERE locktype = 'advisory' AND datname = current_database()") == 0


async def session_settings():
    await asyncio.to_thread(sql, "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.here (n text); "
                                 "CREATE TABLE two.here (n int); INSERT INTO one.here VALUES ('a'); INSERT INTO two.here VALUES (2)")
    await asyncio.to_thread(settled)
    sessions = [await asyncpg.connect(URL, server_settings={"search_path": ["one", "two"][n % 2], "application_name": f"app{n}"})
                for n in range(10)]
    for _ in range(6):
        # The same text means another table, of other types, in every second session.
        found = await asyncio.gather(*(session.fetchval("SELECT n FROM here") for session in sessions))
        assert found == ["a", 2] * 5, found
        names = await asyncio.gather(*(session.fetchval("SHOW application_name") for session in sessions))
        assert names == [f"app{n}" for n in range(10)], names
    assert sessions[3].get_settings().application_name == "app3"
    for session in sessions:
        await session.close()


async def errors():
    connection = await asyncpg.connect(URL)
    for statement, kind in [("SELECT 1/0", asyncpg.DivisionByZeroError), ("SELECT * FROM nowhere", asyncpg.UndefinedTableError),
                            ("SELEC", asyncpg.PostgresSyntaxError), ("SELECT $1::int + 'a'", asyncpg.InvalidTextRepresentationError)]:
        try:
            await connection.fetch(statement)
        except kind as error:
            assert error.sqlstate == kind.sqlstate
        else:
            raise AssertionError(f"{statement} had a result")
        assert await connection.fetchval("SELECT 7") == 7
    notices = asyncio.Queue()
    connection.add_log_listener(lambda _c, message: notices.put_nowait(message.message))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    assert await asyncio.wait_for(notices.get(), 20) == "hello"
    await connection.close()


async def traffic(traffic, number):
    connection = await asyncpg.connect(traffic.url)
    read = f"SELECT * FROM {traffic.table} WHERE id = $1"
    write = f"UPDATE {traffic.table} SET n = n + 1 WHERE id = $1 RETURNING *"
    turn = 0
    while not traffic.over():
        turn += 1
        id = (turn * 7 + number) % 50 + 1
        try:
            row = await connection.fetchrow(read, id)
            traffic.check(row["id"], row["label"], row["v"])
            row = await connection.fetchrow(write, id)
            traffic.written[number] += 1
            traffic.check(row["id"], row["label"], row["v"])
            async with connection.transaction():
                row = await connection.fetchrow(read, id)
                await connection.execute(f"UPDATE {traffic.table} SET n = n + 1 WHERE id = $1", id)
            traffic.written[number] += 1
            traffic.check(row["id"], row["label"], row["v"])
        except asyncpg.PostgresError as error:
            traffic.failure(error.sqlstate)
        except asyncpg.InterfaceError as error:
            traffic.failure(type(error).__name__ + ": " + str(error))
    await connection.close()


def migration_under_traffic():
    migration(traffic)


run(f"asyncpg {asyncpg.__version__}", [
    types, statement_caches, another_ones_ddl, transactions, batches_and_copy, cursors, notifications, time_limits,
    pool_with_reset, session_settings, errors, migration_under_traffic,
])
