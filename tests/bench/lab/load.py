"""Loads: what pgbench sends, and one run of it."""

import dataclasses
import re
import subprocess

from . import postgres, process

PROTOCOLS = ("simple", "extended", "prepared")


@dataclasses.dataclass(frozen=True)
class Load:
    """`script` is pgbench's `-S` (one SELECT) or its TPC-B-like one (seven statements)."""

    script: str
    protocol: str
    clients: int

    @property
    def label(self):
        """Short, for the progress line and the results file."""
        return f"{self.script} {self.protocol} c={self.clients}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What pgbench counted."""

    transactions: int
    per_second: float


def run(load, port, seconds=None, transactions=None, limit=120):
    """One run of so many seconds, or of so many transactions for each client."""
    command = [postgres.client("pgbench"), "-n", "-h", "127.0.0.1", "-p", str(port), "-U", postgres.USER,
               "-M", load.protocol, "-c", str(load.clients), "-j", str(min(2, load.clients))]
    if load.script == "select":
        command.append("-S")
    command += ["-T", str(seconds)] if seconds else ["-t", str(transactions)]
    try:
        done = subprocess.run([*command, postgres.DATABASE], capture_output=True, text=True,
                              env=postgres.environment(), timeout=(seconds or 0) + limit)
    except subprocess.TimeoutExpired as e:
        raise process.Failed(f"pgbench did not end within {(seconds or 0) + limit} s") from e
    count = re.search(r"transactions actually processed: (\d+)", done.stdout)
    speed = re.search(r"^tps = ([\d.]+)", done.stdout, re.M)
    if done.returncode != 0 or not count or int(count[1]) == 0:
        raise process.Failed(_first_error(done.stderr) or f"pgbench ended with {done.returncode}")
    return Outcome(int(count[1]), float(speed[1]))


def _first_error(text):
    """The line that names the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.search("error|fatal|aborted", line, re.I)]
    return (named or lines or [""])[0][:200]
