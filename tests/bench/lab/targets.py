"""The proxies that are compared, each with its configuration from `conf/`, and how one is started.

`one` in a name stands for one server behind the proxy; `split` for the primary and its replicas, where reads go to
the replicas.
"""

import dataclasses
import os
import re
import shutil
import signal
import string
import subprocess

from . import postgres, process

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")
# Server connections of one pool; fewer than clients, so that sharing them is part of what is measured.
POOL = 20


@dataclasses.dataclass(frozen=True)
class Target:
    """A row of the tables."""

    name: str
    program: str
    split: bool = False
    runtime: str = "per-core"
    # Policies that go before the built-in one: paths of `.wasm` files.
    policies: tuple = ()

    def relays(self):
        """Whether there is a process to measure: not for a direct connection."""
        return self.program != "direct"

    def forks(self):
        """Whether clients are served by child processes."""
        return self.program == "pgpool"

    def stop_signal(self):
        """What stops it at once: for Pgpool-II SIGTERM would wait for the clients."""
        return signal.SIGINT if self.program == "pgpool" else signal.SIGTERM


ALL = [
    Target("direct", "direct"),
    Target("haproxy (TCP)", "haproxy"),
    Target("pgbouncer", "pgbouncer"),
    Target("pgpool2", "pgpool"),
    Target("pointsman", "pointsman"),
    Target("pointsman, multi-thread", "pointsman", runtime="multi-thread"),
    Target("pgpool2, split", "pgpool", split=True),
    Target("pointsman, split", "pointsman", split=True),
]


def programs(pointsman, pgbouncer=None):
    """Where each program is; those that are missing have no entry."""
    found = {"direct": "-"}
    if pointsman and os.access(pointsman, os.X_OK):
        found["pointsman"] = os.path.abspath(pointsman)
    for name in ("haproxy", "pgbouncer", "pgpool"):
        path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if path:
            found[name] = path
    if pgbouncer:
        found["pgbouncer"] = pgbouncer
    return found


def version(program, path):
    """One line that names the version."""
    if program == "direct":
        return postgres.version()
    flag = "-v" if program == "haproxy" else "--version"
    done = subprocess.run([path, flag], capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0].split(" - ")[0]


def keeps_prepared(program, path):
    """Whether protocol-level prepared statements work in transaction pooling: PgBouncer's do from 1.21 on."""
    if program != "pgbouncer":
        return True
    number = re.search(r"(\d+)\.(\d+)", version(program, path))
    return bool(number) and (int(number[1]), int(number[2])) >= (1, 21)


class Running:
    """A target that is up, or the bare server for a direct connection."""

    def __init__(self, target, path, cluster, root, wrapper=(), workers=None, children=48, ready=15,
                 quiet=False, clients=1000):
        self.family, self.who = None, process.account()
        if not target.relays():
            self.port = cluster.ports[0]
            return
        self.directory = f"{root}/{target.program}"
        shutil.rmtree(self.directory, ignore_errors=True)
        os.mkdir(self.directory)
        process.give(self.directory, self.who)
        self.port, extra = process.free_ports(2)
        command = self._command(target, path, cluster, extra, workers, children, quiet, clients)
        # Our own binary may live below a home directory that the unprivileged account cannot enter.
        who = None if target.program == "pointsman" else self.who
        self.account = who
        self.family = process.Family(target.name, [*wrapper, *command], f"{root}/{target.program}.log", who,
                                     cwd=self.directory, stop_signal=target.stop_signal())
        try:
            process.wait_until(lambda: self.family.check() and postgres.answers(self.port, ready), ready,
                               f"{target.name} to answer on port {self.port}")
        except BaseException:
            self.stop()
            raise

    def stop(self, seconds=10):
        """Stops it; a direct connection has nothing to stop."""
        if self.family:
            self.family.stop(seconds)

    def _command(self, target, path, cluster, extra, workers, children, quiet, clients):
        values = {"port": self.port, "extra": extra, "primary": cluster.ports[0], "pool": POOL,
                  "directory": self.directory, "children": children, "runtime": target.runtime,
                  "clients": clients}
        behind = cluster.ports[1:] if target.split else []
        if target.program == "haproxy":
            return [path, "-db", "-f", self._write("haproxy.cfg", values)]
        if target.program == "pgbouncer":
            values["prepared"] = "max_prepared_statements = 200" if keeps_prepared("pgbouncer", path) else ""
            return [path, self._write("pgbouncer.ini", values)]
        if target.program == "pgpool":
            values["balance"] = "on" if target.split else "off"
            values["backends"] = "\n".join(_backend(n, port, target.split)
                                           for n, port in enumerate([cluster.ports[0], *behind]))
            passwords = f"{self.directory}/pcp.conf"
            with open(passwords, "w"):
                pass
            return [path, "-n", "-D", "-f", self._write("pgpool.conf", values), "-F", passwords]
        values["replicas"] = ", ".join(f'"127.0.0.1:{port}"' for port in behind)
        values["workers"] = f"workers = {workers}" if workers else ""
        values["monitor"] = 'monitor = { interval = "1h" }' if quiet else ""
        values["policies"] = ""
        if target.policies:
            folder = f"{self.directory}/policies"
            os.mkdir(folder)
            for file in target.policies:
                shutil.copy(file, folder)
            values["policies"] = f'[policies]\ndirectory = "{folder}"'
        return [path, "run", "--config", self._write("pointsman.toml", values)]

    def _write(self, name, values):
        with open(f"{CONF}/{name}") as f:
            text = string.Template(f.read()).substitute(values)
        path = f"{self.directory}/{name}"
        with open(path, "w") as f:
            f.write(text)
        process.give(path, self.who)
        return path


def _backend(n, port, split):
    weight = 0 if split and n == 0 else 1
    flag = "ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER" if n == 0 else "DISALLOW_TO_FAILOVER"
    return (f"backend_hostname{n} = '127.0.0.1'\nbackend_port{n} = {port}\n"
            f"backend_weight{n} = {weight}\nbackend_flag{n} = '{flag}'")
