"""The servers of a run: a primary with pg_regress's settings, streaming replicas of it, and the gateway in front."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.request

from .source import fail, program

ROOT = pathlib.Path(__file__).resolve().parents[3]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def as_postgres(command):
    """The command, by an unprivileged user if we are root: PostgreSQL refuses root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command] if os.getuid() == 0 else command


def wait_for(port, process=None):
    start = time.monotonic()
    while time.monotonic() - start < 60 and (process is None or process.poll() is None):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    fail(f"nothing listens on port {port}")


class Server:
    """One PostgreSQL with pg_regress's settings, or a streaming replica of one."""

    def __init__(self, folder, name="data", primary=None):
        self.data = folder / name
        self.port = free_port()
        self.log = open(folder / f"{name}.log", "w")
        if primary:
            self.run("pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", str(self.data),
                     "-R", "-X", "stream", "-c", "fast")
        else:
            self.run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "-N", "--no-locale", "-E", "UTF8")
        options = {"port": self.port, "unix_socket_directories": "", "listen_addresses": "127.0.0.1", "fsync": "off",
                   "max_prepared_transactions": 2, "max_connections": 100}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(as_postgres([program("postgres"), "-D", str(self.data), *words]),
                                        stdout=self.log, stderr=self.log, preexec_fn=die_with_parent)
        wait_for(self.port, self.process)
        self.wait_until_ready()

    def wait_until_ready(self):
        """It listens before it takes sessions."""
        start = time.monotonic()
        while True:
            try:
                return self.psql("SELECT 1")
            except subprocess.CalledProcessError as error:
                if time.monotonic() - start > 60:
                    fail(f"a server takes no sessions: {error.stderr}")
                time.sleep(0.1)

    def run(self, name, *arguments):
        done = subprocess.run(as_postgres([program(name), *arguments]), stdout=self.log, stderr=self.log)
        if done.returncode:
            self.log.flush()
            fail(f"{name} failed: {pathlib.Path(self.log.name).read_text()[-2000:]}")

    def psql(self, sql, database="postgres"):
        command = [program("psql"), "-XqAt", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-c", sql]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def create(self, database):
        """A database as pg_regress makes it."""
        self.psql(f"CREATE DATABASE {database} TEMPLATE template0")
        for name, value in [("lc_messages", "C"), ("lc_monetary", "C"), ("lc_numeric", "C"), ("lc_time", "C"),
                            ("bytea_output", "hex"), ("timezone_abbreviations", "Default")]:
            self.psql(f"ALTER DATABASE {database} SET {name} TO '{value}'")

    def passwords(self):
        """Roles that log in with the password `password`, by each of PostgreSQL's methods: pass_user, md5_user, scram_user."""
        methods = {"pass": "password", "md5": "md5", "scram": "scram-sha-256"}
        for name, method in methods.items():
            self.psql(f"SET password_encryption = '{'md5' if name == 'md5' else 'scram-sha-256'}'; CREATE ROLE {name}_user LOGIN PASSWORD 'password'")
        rules = self.data / "pg_hba.conf"
        rules.write_text("".join(f"host all {name}_user all {method}\n" for name, method in methods.items()) + rules.read_text())
        self.psql("SELECT pg_reload_conf()")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()


class Gateway:
    """The gateway in front of a primary and its replicas."""

    def __init__(self, folder, primary, replicas, mode, pool, more=""):
        self.port = free_port()
        self.admin = free_port()
        self.log = folder / "gateway.log"
        nodes = ", ".join(f'"127.0.0.1:{replica.port}"' for replica in replicas)
        configuration = folder / "pointsman.toml"
        configuration.write_text(
            f'[server]\nlisten = ["127.0.0.1:{self.port}"]\n[admin]\nlisten = "127.0.0.1:{self.admin}"\n'
            f'[pool]\nmode = "{mode}"\nsize = {pool}\n'
            f'[clusters.main]\nprimary = "127.0.0.1:{primary.port}"\nreplicas = [{nodes}]\n{more}')
        out = open(self.log, "a")
        self.process = subprocess.Popen([binary(), "run", "--config", configuration], stdout=out, stderr=out,
                                        preexec_fn=die_with_parent)
        wait_for(self.port, self.process)

    def counts(self):
        """What was counted: statements by the role decided, those that ran pinned, and those by cause."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = {"statements": 0, "pinned": 0, "local": 0, "targets": {}, "nodes": {}, "causes": {}}
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? ([\d.e+]+)", line).groups()
            labels, value = dict(re.findall(r'(\w+)="([^"]*)"', labels or "")), int(float(value))
            if name == "pointsman_statements_total":
                found["statements"] += value
                for key, label in (("targets", "target"), ("nodes", "node")):
                    found[key][labels[label]] = found[key].get(labels[label], 0) + value
            elif name == "pointsman_statements_pinned_total":
                found["pinned"] = value
            elif name == "pointsman_local_answers_total":
                found["local"] = value
            elif name == "pointsman_statements_pinned_causes_total":
                found["causes"][labels["cause"]] = value
        return found

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def binary():
    named = os.environ.get("POINTSMAN_BIN")
    path = pathlib.Path(named or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "pointsman")
    return path if path.exists() else fail(f"{path} is not there: cargo build --release makes it")
