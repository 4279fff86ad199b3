"""A PostgreSQL primary with streaming replicas in a directory of its own, loaded for pgbench.

Set up so that the servers cost little and alike in each run: no fsync, no JIT, trust on loopback. Never for data
that matters.
"""

import glob
import os
import shutil
import signal
import subprocess

from . import process

DATABASE = USER = "bench"

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 128MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_wal_size = 8GB
checkpoint_timeout = 1h
wal_level = replica
max_wal_senders = 8
hot_standby_feedback = on
jit = off
"""

HBA = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"


def directory():
    """Where the server's programs are."""
    candidates = [os.environ.get("POINTSMAN_PG_BIN", ""), *os.environ["PATH"].split(":")]
    candidates += sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=_version, reverse=True)
    candidates += glob.glob("/usr/pgsql-*/bin") + glob.glob("/usr/libexec/postgresql*")
    for candidate in candidates:
        if all(os.access(f"{candidate}/{x}", os.X_OK) for x in ("initdb", "postgres", "pg_basebackup")):
            return candidate
    raise process.Failed("PostgreSQL's server programs were not found: scripts/install-missing.sh postgresql")


def client(name):
    """A client program: beside the server's, or in the PATH."""
    beside = f"{directory()}/{name}"
    found = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if not found:
        raise process.Failed(f"{name} was not found: scripts/install-missing.sh postgresql")
    return found


def version():
    """What `postgres --version` says."""
    return subprocess.run([f"{directory()}/postgres", "--version"], capture_output=True, text=True).stdout.strip()


def answers(port, seconds=5):
    """Whether a statement can be run there."""
    command = [client("psql"), "-XAtqc", "select 1", "-h", "127.0.0.1", "-p", str(port), "-U", USER, "-d", DATABASE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.strip() == "1"


def environment():
    """libpq's variables for clients: one round trip less at the log-in, and no wait without end."""
    return {**os.environ, "PGPASSWORD": USER, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable",
            "PGCONNECT_TIMEOUT": "20"}


class Cluster:
    """`ports[0]` is the primary."""

    def __init__(self, root, replicas, scale):
        self.root, self.who = root, process.account()
        self.bin, self.ports = directory(), process.free_ports(1 + replicas)
        self.servers = []
        try:
            self._primary(scale)
            for n in range(1, replicas + 1):
                self._replica(n)
        except BaseException:
            self.stop()
            raise

    def cpu(self):
        """Seconds of processor time of all servers."""
        return sum(s.cpu() for s in self.servers)

    def stop(self):
        """Stops all servers, replicas first."""
        for server in reversed(self.servers):
            server.stop()
        self.servers = []

    def _primary(self, scale):
        data = f"{self.root}/node0"
        self._program("initdb", "-D", data, "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with open(f"{data}/postgresql.conf", "a") as f:
            f.write(SETTINGS)
        with open(f"{data}/pg_hba.conf", "w") as f:
            f.write(HBA)
        self._serve(0, "postgres")
        self._program("createdb", *self._to(0), DATABASE)
        self._program("pgbench", "-i", "-q", "-s", str(scale), *self._to(0), DATABASE)
        self._program("psql", "-Xqc", "checkpoint", *self._to(0), DATABASE)

    def _replica(self, n):
        data = f"{self.root}/node{n}"
        self._program("pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync", *self._to(0))
        self._serve(n, DATABASE)

    def _serve(self, n, database):
        # SIGINT is PostgreSQL's fast shutdown.
        server = process.Family(
            f"PostgreSQL node {n}", [f"{self.bin}/postgres", "-D", f"{self.root}/node{n}", "-p", str(self.ports[n])],
            f"{self.root}/node{n}.log", self.who, stop_signal=signal.SIGINT)
        self.servers.append(server)
        ready = [f"{self.bin}/pg_isready", "-q", "-d", database, *self._to(n)]
        process.wait_until(lambda: server.check() and subprocess.run(ready).returncode == 0, 60, server.name)

    def _to(self, n):
        return ["-h", "127.0.0.1", "-p", str(self.ports[n]), "-U", USER]

    def _program(self, name, *arguments):
        done = subprocess.run([client(name), *arguments], capture_output=True, text=True, cwd="/",
                              **process.as_account(self.who))
        if done.returncode != 0:
            raise process.Failed(f"{name} failed: {done.stderr.strip()[-500:]}")


def _version(path):
    number = path.split("/")[-2]
    return int(number) if number.isdigit() else 0
