"""SQLAlchemy doing real work over psycopg and asyncpg: the ORM's unit of work, its pools, its caches of statements."""

import asyncio
import enum
import threading
import uuid
from decimal import Decimal

import sqlalchemy as sa
from common import URL, migration, run, settled, together
from sqlalchemy import event, orm
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext import asyncio as sa_async
from sqlalchemy.orm import Mapped, mapped_column, relationship


def url(driver, base=URL):
    return sa.engine.make_url(base).set(drivername=f"postgresql+{driver}")


class Base(orm.DeclarativeBase):
    pass


class Mood(enum.Enum):
    SAD = "sad"
    HAPPY = "happy"


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    mood: Mapped[Mood] = mapped_column(default=Mood.HAPPY)
    facts: Mapped[dict] = mapped_column(pg.JSONB, default=dict)
    tags: Mapped[list[str]] = mapped_column(pg.ARRAY(sa.Text), default=list)
    key: Mapped[uuid.UUID] = mapped_column(default=uuid.uuid4)
    price: Mapped[Decimal] = mapped_column(sa.Numeric(10, 3), default=Decimal("12.340"))
    version: Mapped[int] = mapped_column()
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")
    __mapper_args__ = {"version_id_col": version}


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


def schema_and_reflection():
    engine = sa.create_engine(url("psycopg"))
    Base.metadata.create_all(engine)
    # Asks the catalogue whether each is there, drops, and makes all again: in one transaction each.
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    settled()
    for _ in range(4):
        seen = sa.inspect(sa.create_engine(url("psycopg"), poolclass=sa.NullPool))
        assert {"author", "book"} <= set(seen.get_table_names())
        assert [key["referred_table"] for key in seen.get_foreign_keys("book")] == ["author"]
        assert any(kind["name"] == "mood" and kind["labels"] == ["SAD", "HAPPY"] for kind in seen.get_enums())
    reflected = sa.MetaData()
    reflected.reflect(engine)
    assert isinstance(reflected.tables["author"].c.facts.type, pg.JSONB)
    engine.dispose()


def unit_of_work():
    engine = sa.create_engine(url("psycopg"), pool_size=4, max_overflow=4, pool_pre_ping=True)
    factory = orm.sessionmaker(engine)

    def work(number):
        for turn in range(6):
            name = f"author {number}/{turn}"
            with factory() as session:
                author = Author(name=name, facts={"n": number}, tags=["a", "b"], mood=Mood.SAD)
                author.books = [Book(title=f"{name}, volume {n}") for n in range(5)]
                session.add(author)
                session.commit()
                # Expired by the commit: these are read again, in a new transaction.
                assert author.facts == {"n": number} and author.price == Decimal("12.340") and author.mood is Mood.SAD
                assert [book.title for book in author.books][4].endswith("volume 4")
                try:
                    with session.begin_nested():
                        session.add(Author(name=name))
                        session.flush()
                except sa.exc.IntegrityError:
                    pass
                else:
                    raise AssertionError("the key was not checked")
                author.tags = [*author.tags, "c"]
                author.books.pop()
                session.commit()
            # Another connection of the pool, maybe, and another session of the gateway's: through the same key.
            with factory() as session:
                author = session.scalars(sa.select(Author).where(Author.name == name).with_for_update()).one()
                loaded = session.scalars(sa.select(Author).options(orm.selectinload(Author.books)).where(Author.id == author.id)).one()
                assert loaded.tags == ["a", "b", "c"] and len(loaded.books) == 4
                session.rollback()

    together(8, work)
    settled()
    with orm.Session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Author)) == 48
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 48 * 4
        one, two = factory(), factory()
        first = one.scalars(sa.select(Author).order_by(Author.id).limit(1)).one()
        second = two.scalars(sa.select(Author).order_by(Author.id).limit(1)).one()
        first.facts = {"changed": 1}
        one.commit()
        second.facts = {"changed": 2}
        try:
            two.commit()
        except orm.exc.StaleDataError:
            two.rollback()
        else:
            raise AssertionError("a stale write passed")
        one.close()
        two.close()
    engine.dispose()


def many_rows():
    engine = sa.create_engine(url("psycopg"))
    with orm.Session(engine) as session:
        # Rows in batches with RETURNING, their order kept by sentinels.
        authors = [Author(name=f"many {n}") for n in range(1500)]
        session.add_all(authors)
        session.flush()
        assert len({author.id for author in authors}) == 1500
        session.commit()
        added = session.execute(
            pg.insert(Author).on_conflict_do_update(index_elements=["name"], set_={"mood": Mood.SAD}).returning(Author.id),
            [{"name": f"many {n}", "version": 1} for n in range(0, 1600, 100)],
        ).all()
        assert len(added) == 16
        session.execute(sa.update(Author), [{"id": author.id, "price": n, "version": 1} for n, author in enumerate(authors[:200])])
        session.commit()
        # A server-side cursor, read in pieces while other statements run.
        rows = session.scalars(sa.select(Author).where(Author.name.like("many %")).execution_options(yield_per=100))
        count = 0
        for part in rows.partitions():
            count += len(part)
            assert session.scalar(sa.select(sa.literal(7))) == 7
        assert count == 1501, count
        session.rollback()
    with engine.connect() as connection:
        with connection.execution_options(stream_results=True, max_row_buffer=50).execute(
                sa.text("SELECT generate_series(1, 2000)")) as result:
            assert sum(1 for _ in result) == 2000
    engine.dispose()


def pool_and_settings():
    resets = []
    engine = sa.create_engine(url("psycopg"), pool_size=6, max_overflow=0, pool_reset_on_return=None,
                              connect_args={"options": "-c statement_timeout=54321"})

    @event.listens_for(engine, "connect")
    def on_connect(connection, _record):
        connection.execute("SET search_path = 'public', 'pg_temp'")
        connection.commit()

    @event.listens_for(engine, "reset")
    def on_reset(connection, _record, reset_state):
        if not reset_state.terminate_only:
            resets.append(1)
            connection.rollback()

    def work(number):
        for turn in range(8):
            with engine.connect() as connection:
                assert connection.scalar(sa.text("SHOW search_path")) == "public, pg_temp"
                assert connection.scalar(sa.text("SHOW statement_timeout")) == "54321ms"
                # Rolled back as the pool takes the connection back.
                connection.execute(sa.text(f"SET work_mem = '{number + 100}kB'"))
                assert connection.scalar(sa.text("SHOW work_mem")) == f"{number + 100}kB"
            with engine.connect() as connection:
                assert connection.scalar(sa.text("SHOW work_mem")) == "4MB"

    together(8, work)
    assert len(resets) >= 64
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE TABLE auto (n int)"))
        connection.execute(sa.text("VACUUM auto"))
    for level in ["SERIALIZABLE", "REPEATABLE READ"]:
        with engine.connect().execution_options(isolation_level=level) as connection:
            assert connection.scalar(sa.text("SHOW transaction_isolation")) == level.lower()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "read committed"
    reading = engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
    with reading.connect() as connection:
        assert connection.scalar(sa.text("SHOW transaction_read_only")) == "on"
        try:
            connection.execute(sa.text("INSERT INTO auto VALUES (1)"))
        except sa.exc.InternalError:
            pass
        else:
            raise AssertionError("a read-only connection wrote")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO auto VALUES (1)"))
    two_phase = orm.Session(engine, twophase=True)
    try:
        two_phase.execute(sa.text("INSERT INTO auto VALUES (2)"))
        two_phase.prepare()
        two_phase.commit()
    except sa.exc.OperationalError as error:
        assert error.orig.sqlstate == "55000", error  # max_prepared_transactions is 0
    two_phase.close()
    engine.dispose()


async def over_asyncpg():
    engine = sa_async.create_async_engine(url("asyncpg"), pool_size=8, max_overflow=4)
    factory = sa_async.async_sessionmaker(engine, expire_on_commit=False)

    async def work(number):
        for turn in range(5):
            name = f"async {number}/{turn}"
            async with factory() as session:
                session.add(Author(name=name, facts={"n": turn}, tags=["x"], books=[Book(title=name)]))
                await session.commit()
                await session.execute(sa.update(Author).where(Author.name == name).values(tags=["y"]))
                try:
                    async with session.begin_nested():
                        session.add(Author(name=name))
                        await session.flush()
                except sa.exc.IntegrityError:
                    pass
                await session.commit()
                found = (await session.scalars(
                    sa.select(Author).where(Author.name == name).options(orm.selectinload(Author.books))
                    .execution_options(populate_existing=True))).one()
                assert found.tags == ["y"] and found.facts == {"n": turn} and len(found.books) == 1
                await session.delete(found)
                await session.commit()

    await asyncio.gather(*(work(number) for number in range(16)))
    async with engine.connect() as connection:
        result = await connection.stream(sa.text("SELECT generate_series(1, 1000)"))
        assert len([row async for row in result]) == 1000
    await engine.dispose()


async def another_ones_ddl():
    engine = sa_async.create_async_engine(url("asyncpg"), pool_size=6)
    other = sa.create_engine(url("psycopg"))

    def ddl(text):
        with other.begin() as connection:
            connection.execute(sa.text(text))

    await asyncio.to_thread(ddl, "CREATE TABLE d (id int PRIMARY KEY, v int, label text); INSERT INTO d VALUES (1, 10, 'one')")
    await asyncio.to_thread(settled)

    async def read():
        async with engine.connect() as connection:
            return tuple((await connection.execute(sa.text("SELECT id, v::text, label FROM d WHERE id = :id"), {"id": 1})).one())

    for step in ["SELECT 1", "ALTER TABLE d ADD COLUMN more int DEFAULT 5", "ALTER TABLE d ALTER COLUMN v TYPE text",
                 "ALTER TABLE d DROP COLUMN more", "ALTER TABLE d ALTER COLUMN v TYPE int USING v::int"]:
        await asyncio.to_thread(ddl, step)
        await asyncio.to_thread(settled)
        for _ in range(12):
            found = await asyncio.gather(*(read() for _ in range(6)))
            assert set(found) == {(1, "10", "one")}, f"after {step}: {found}"
    await engine.dispose()
    other.dispose()


def traffic_engine(traffic, lock=threading.Lock()):
    with lock:
        if not hasattr(traffic, "engine"):
            traffic.engine = sa.create_engine(url("psycopg", traffic.url), pool_size=4, connect_args={"prepare_threshold": 2})
        return traffic.engine


def use(traffic, number):
    engine = traffic_engine(traffic)
    read = sa.text(f"SELECT * FROM {traffic.table} WHERE id = :id")
    write = sa.text(f"UPDATE {traffic.table} SET n = n + 1 WHERE id = :id RETURNING *")
    turn = 0
    while not traffic.over():
        turn += 1
        id = {"id": (turn * 7 + number) % 50 + 1}
        try:
            with engine.connect() as connection:
                row = connection.execute(read, id).one()
                traffic.check(row.id, row.label, row.v)
            with engine.begin() as connection:
                row = connection.execute(write, id).one()
            traffic.written[number] += 1
            traffic.check(row.id, row.label, row.v)
        except sa.exc.DBAPIError as error:
            traffic.failure(error.orig.sqlstate)


async def use_async(traffic, number):
    engine = sa_async.create_async_engine(url("asyncpg", traffic.url), pool_size=1)
    read = sa.text(f"SELECT * FROM {traffic.table} WHERE id = :id")
    write = sa.text(f"UPDATE {traffic.table} SET n = n + 1 WHERE id = :id RETURNING *")
    turn = 0
    while not traffic.over():
        turn += 1
        id = {"id": (turn * 7 + number) % 50 + 1}
        try:
            async with engine.connect() as connection:
                row = (await connection.execute(read, id)).one()
                traffic.check(row.id, row.label, row.v)
            async with engine.begin() as connection:
                row = (await connection.execute(write, id)).one()
            traffic.written[number] += 1
            traffic.check(row.id, row.label, row.v)
        except sa.exc.DBAPIError as error:
            traffic.failure(error.orig.sqlstate or type(error.orig).__name__)
    await engine.dispose()


def migration_under_traffic():
    # psycopg prepares at the third use and describes each portal; a changed result is refused all the same.
    migration(use, expected=["0A000"])


def migration_under_async_traffic():
    migration(use_async, tables=("moved", "moved_directly"))


run(f"SQLAlchemy {sa.__version__}", [
    schema_and_reflection, unit_of_work, many_rows, pool_and_settings, over_asyncpg, another_ones_ddl,
    migration_under_traffic, migration_under_async_traffic,
])
