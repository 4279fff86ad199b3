"""Python's suites: asyncpg, psycopg2, SQLAlchemy with both psycopgs' successors, Django. They come from the packages' source archives;
what is tested is the package as it is installed for everybody."""

import sys
import tarfile

from . import base
from .base import HERE, made, run


def interpreter():
    """Python with the drivers, the suites' runners and nothing else."""
    wanted = (HERE / "requirements.txt").read_text()

    def make(folder):
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt")
        (folder / "requirements.txt").write_text(wanted)

    folder = base.CACHE / "python"
    if folder.is_dir() and (folder / "requirements.txt").read_text() != wanted:
        base.shutil.rmtree(folder)
    return made("python", make) / "bin/python"


def archive(name, version):
    """The unpacked source archive of a package."""

    def make(folder):
        run(interpreter(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", name,
            "--dest", folder, f"{name}=={version}")
        packed = next(folder.glob("*.tar.gz"))
        with tarfile.open(packed) as opened:
            opened.extractall(folder)
        packed.unlink()

    folder = made(f"{name}-{version}", make)
    return next(folder.iterdir())


class Pytest:
    """A suite that pytest runs."""

    paths = ["tests"]
    database = "postgres"
    # Tests that have nothing to do with a server, or that cannot be run twice in a row.
    without = []

    def __init__(self, name, package, version):
        self.name, self.package, self.version = name, package, version
        self.title = f"{name} {version}"

    def prepare(self):
        interpreter()
        self.source = archive(self.package, self.version)

    def environment(self, port):
        return base.environment(port, PGDATABASE=self.database)

    def options(self, port):
        return []

    def run(self, port, folder, chosen, limit, tell):
        command = [interpreter(), "-m", "pytest", "-q", "-p", "pointsman_record", "-p", "no:cacheprovider", "--tb=short", "--rootdir",
                   self.source, *self.options(port)]
        for path in self.without:
            command += ["--deselect" if "::" in path else "--ignore", path]
        if chosen:
            command += ["-k", chosen]
        env = self.environment(port)
        env["PYTHONPATH"] = str(HERE / "inside")
        return base.recorded([*command, *self.paths], env, self.source, folder, limit, tell)


class Asyncpg(Pytest):
    # A check of the sources' style, and of the environment of asyncpg's own machines.
    without = ["tests/test__sourcecode.py", "tests/test__environment.py",
               # Servers of its own, primary and standby, which the gateway is not in front of.
               "tests/test_connect.py::TestConnectionAttributes"]

    def setup(self, server):
        pass

    def prepare(self):
        super().prepare()
        # The installed package, which is compiled, and not the sources beside the tests.
        sources = self.source / "asyncpg"
        if sources.is_dir():
            base.shutil.rmtree(sources)


class Psycopg2(Pytest):
    database = "psycopg2_test"

    def setup(self, server):
        server.create(self.database)

    def environment(self, port):
        return super().environment(port) | {"PSYCOPG2_TESTDB": self.database}


class Sqlalchemy(Pytest):
    """The dialect's tests, the suite for all dialects, and those of engines and connections, as far as they need a server. Its
    7,000 tests of types' values, most of ranges compared with ranges, are left out: they say nothing of connections."""

    database = "test"
    paths = [*(f"test/dialect/postgresql/test_{name}.py" for name in ("async_pg", "dialect", "on_conflict", "query", "reflection")),
             "test/engine", "test/ext/asyncio", "test/dialect/test_suite.py"]

    def __init__(self, name, driver):
        super().__init__(name, "sqlalchemy", "2.1.9")
        self.driver = driver
        self.title = f"SQLAlchemy 2.1.9, {driver}"

    def setup(self, server):
        server.psql("CREATE DATABASE test TEMPLATE template0")
        for sql in ("CREATE SCHEMA test_schema", "CREATE SCHEMA test_schema_2", "CREATE EXTENSION hstore", "CREATE EXTENSION citext",
                    "CREATE EXTENSION btree_gist", "CREATE EXTENSION postgres_fdw",
                    "CREATE SERVER test_server FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname 'test', host '127.0.0.1', "
                    f"port '{server.port}')", "CREATE USER MAPPING FOR public SERVER test_server OPTIONS (user 'postgres')"):
            server.psql(sql, "test")
        server.psql("ALTER DATABASE test SET default_text_search_config = 'pg_catalog.english'")

    def options(self, port):
        return ["--dburi", f"postgresql+{self.driver}://postgres:any@127.0.0.1:{port}/test", "--backend-only",
                "--postgresql-templatedb", "template0"]


class Django:
    """The applications of Django's suite that say most of a database."""

    name = "django"
    version = "5.2.19"
    title = f"Django {version}, psycopg 3"
    applications = ["backends", "postgres_tests", "transactions", "transaction_hooks", "select_for_update", "constraints", "introspection",
                    "basic", "bulk_create", "get_or_create", "async", "raw_query", "multiple_database"]

    def prepare(self):
        interpreter()
        self.source = archive("django", self.version)

    def setup(self, server):
        # The suite makes databases of its own beside this one.
        server.psql("CREATE DATABASE django")

    def run(self, port, folder, chosen, limit, tell):
        (folder / "pointsman_settings.py").write_text(SETTINGS.format(port=port))
        env = base.environment(port, PYTHONPATH=f"{HERE}/inside:{folder}")
        command = [interpreter(), "runtests.py", "--settings=pointsman_settings", "--parallel=1", "--noinput", "-v", "1"]
        command += ["-k", chosen] if chosen else []
        return base.recorded([*command, *self.applications], env, self.source / "tests", folder, limit, tell)


SETTINGS = """
from pointsman_record import django_runner
TEST_RUNNER = "pointsman_settings.Runner"
def __getattr__(name):
    if name == "Runner":
        return django_runner()
    raise AttributeError(name)
server = {{"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": {port}, "USER": "postgres"}}
DATABASES = {{"default": {{**server, "NAME": "django"}}, "other": {{**server, "NAME": "django_other"}}}}
SECRET_KEY = "anything"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""

SUITES = [Asyncpg("asyncpg", "asyncpg", "0.32.0"), Psycopg2("psycopg2", "psycopg2", "2.9.13"), Sqlalchemy("sqlalchemy-psycopg", "psycopg"),
          Sqlalchemy("sqlalchemy-asyncpg", "asyncpg"), Django()]
