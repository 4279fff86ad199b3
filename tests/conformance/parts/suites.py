"""The suites: which tests there are, which of them run at once, and whether one has passed.

A test's outcome is its difference from what is expected: '' is none, None that it took too long.
"""

import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess

from . import source
from .servers import die_with_parent
from .source import fail, program


class Suite:
    """A suite in a folder of its own, against one port."""

    def __init__(self, work, limit):
        self.work = work
        self.results = work / "results"
        self.limit = limit
        self.results.mkdir(parents=True)
        self.prepare()
        if os.getuid() == 0:
            # The server reads and writes some of these files.
            entry = pwd.getpwnam("postgres")
            for path in [work, *work.rglob("*")]:
                os.chown(path, entry.pw_uid, entry.pw_gid)
            self.results.chmod(0o777)

    def environment(self, name, port):
        """pg_regress's."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        text = (source.tree() / "src/test/regress/pg_regress.c").read_text()
        # Minor versions differ.
        zone = re.search(r'setenv\("PGTZ", "([^"]+)"', text).group(1)
        return environment | {
            "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGAPPNAME": f"{self.prefix}/{name}", "PGTZ": zone,
            "PGDATESTYLE": "Postgres, MDY", "PGOPTIONS": "-c intervalstyle=postgres_verbose", "LC_MESSAGES": "C",
            "PG_ABS_SRCDIR": str(self.work), "PG_ABS_BUILDDIR": str(self.work), "PG_LIBDIR": str(self.work), "PG_DLSUFFIX": ".so",
            "PGCONNECT_TIMEOUT": "30",
        }

    def started(self, command, name, port, stdin, out):
        """Runs one test's program to its end. Its exit code, None if it took too long."""
        # Its own process group: \! may leave children.
        process = subprocess.Popen(command, stdin=stdin, stdout=out, stderr=subprocess.STDOUT, env=self.environment(name, port),
                                   cwd=self.work, start_new_session=True, preexec_fn=die_with_parent)
        try:
            return process.wait(timeout=self.limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None

    def differences(self, name):
        """The shortest difference to an expected file, as `diff -w` gives it."""
        expected = self.work / "expected"
        files = [expected / f"{name}.out"] + [expected / f"{name}_{n}.out" for n in range(10)]
        diffs = []
        for path in filter(pathlib.Path.exists, files):
            diffs.append(subprocess.run(["diff", "-w", path, self.results / f"{name}.out"], capture_output=True).stdout)
        return min(diffs, key=len, default=b"no expected file").decode(errors="replace")

    def known(self):
        return {name for group in self.groups() for name in group}

    def wanted(self, names):
        """Groups of tests that run at once; if some are named, those one by one."""
        if not names:
            return self.groups()
        if strange := set(names) - self.known():
            fail(f"no such test: {', '.join(sorted(strange))}")
        return self.first(names)

    def first(self, names):
        return [[name] for name in names]


class Regress(Suite):
    """PostgreSQL's regression suite, in parallel as pg_regress runs it."""

    title = "regression suite"
    prefix = "pg_regress"
    database = "regression"

    def prepare(self):
        folder = source.tree() / "src/test/regress"
        for part in ("sql", "expected", "data"):
            shutil.copytree(folder / part, self.work / part)
        shutil.copy(source.regress_library(), self.work / "regress.so")
        for extension in ("autoinc.so", "refint.so"):
            shutil.copy(pathlib.Path(program("postgres")).parents[1] / "lib" / extension, self.work / extension)

    def groups(self):
        lines = (source.tree() / "src/test/regress/parallel_schedule").read_text().splitlines()
        return [line[len("test:"):].split() for line in lines if line.startswith("test:")]

    def first(self, names):
        # What all need.
        return [["test_setup"]] + [[name] for name in names if name != "test_setup"]

    def one(self, name, port):
        command = [program("psql"), "-X", "-a", "-q", "-d", self.database, "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"]
        with open(self.work / "sql" / f"{name}.sql") as script, open(self.results / f"{name}.out", "w") as out:
            if self.started(command, name, port, script, out) is None:
                return None
        return self.differences(name)


class Isolation(Suite):
    """The isolation suite: sessions whose steps interleave. The tester sees by process ids who waits for whom."""

    title = "isolation suite"
    prefix = "isolation"
    database = "isolation_regression"

    def prepare(self):
        folder = source.tree() / "src/test/isolation"
        for part in ("specs", "expected"):
            shutil.copytree(folder / part, self.work / part)
        source.isolationtester()

    def groups(self):
        lines = (source.tree() / "src/test/isolation/isolation_schedule").read_text().splitlines()
        return [[name] for line in lines if line.startswith("test:") for name in line[len("test:"):].split()]

    def one(self, name, port):
        command = [source.isolationtester(), f"dbname={self.database}"]
        with open(self.work / "specs" / f"{name}.spec") as spec, open(self.results / f"{name}.out", "w") as out:
            if self.started(command, name, port, spec, out) is None:
                return None
        return self.differences(name)


class Pipeline(Suite):
    """libpq's tests of its pipeline mode; for most, every message that was exchanged is compared as well."""

    title = "libpq_pipeline"
    prefix = "libpq_pipeline"
    database = "pipeline"
    rows = "700"

    def prepare(self):
        shutil.copytree(source.tree() / "src/test/modules/libpq_pipeline/traces", self.work / "expected")
        for path in (self.work / "expected").glob("*.trace"):
            path.rename(path.with_suffix(".out"))

    def groups(self):
        listed = subprocess.run([source.libpq_pipeline(), "tests"], capture_output=True, text=True, check=True).stdout
        return [[name] for name in listed.split()]

    def one(self, name, port):
        words, printed = ["-r", self.rows], self.results / f"{name}.said"
        traced = (self.work / "expected" / f"{name}.out").exists()
        if traced:
            words += ["-t", self.results / f"{name}.out"]
        with open(printed, "w") as out:
            code = self.started([source.libpq_pipeline(), *words, name, f"dbname={self.database}"], name, port, None, out)
        if code is None:
            return None
        if code:
            return f"exit code {code}\n> {printed.read_text().strip()}"
        return self.differences(name) if traced else ""


SUITES = {"regress": Regress, "isolation": Isolation, "pipeline": Pipeline}
