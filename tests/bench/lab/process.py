"""Processes: started under an account that may run them, watched as a whole family, stopped by group.

PostgreSQL, PgBouncer and others refuse to run as root; started as root, they get an unprivileged account.
"""

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """What stops a measurement, in words for the person who started it."""


def account():
    """The account for programs that refuse root: `None` when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Failed("PostgreSQL refuses to run as root, and neither `postgres` nor `nobody` exists")


def as_account(who):
    """Arguments of `subprocess` that run a program under `who`."""
    if who is None:
        return {}
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": [], "env": {**os.environ, "HOME": "/"}}


def give(path, who):
    """Hands a file or directory over to `who`."""
    if who is not None:
        os.chown(path, who.pw_uid, who.pw_gid)


def free_ports(count):
    """`count` loopback ports that are free now; they are all held until the last is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def wait_until(condition, seconds, what):
    """Asks until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


class Family:
    """A process that we started, and all its descendants."""

    def __init__(self, name, command, log, who=None, cwd="/", stop_signal=signal.SIGTERM):
        self.name, self.log, self.stop_signal = name, log, stop_signal
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, start_new_session=True,
                preexec_fn=lambda: _die_with_parent(stop_signal), **as_account(who))
        self.pid = self.process.pid

    def check(self):
        """Says how it ended, if it did."""
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}; the end of its log:\n{self.tail()}")
        return True

    def tail(self):
        """The end of its log."""
        with open(self.log, errors="replace") as f:
            return f.read()[-1500:]

    def pids(self):
        """The process and its living descendants."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = _stat(int(entry))
                if fields:
                    children.setdefault(int(fields[1]), []).append(int(entry))
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found

    def cpu(self):
        """Seconds of processor time, user and kernel, of all threads, with children that ended."""
        # Fields 14 to 17 of /proc/PID/stat (proc(5)): utime, stime, cutime, cstime. `_stat` starts at field 3.
        total = 0
        for pid in self.pids():
            fields = _stat(pid)
            if fields:
                total += sum(int(x) for x in fields[11:15])
        return total / TICKS

    def stop(self, seconds=10):
        """Asks it to stop, then makes it; nothing of its group is left."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def _stat(pid):
    """The fields of /proc/PID/stat from the third on; the second may hold spaces and parentheses."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            text = f.read()
    except (OSError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2:].split()


def _die_with_parent(number):
    """A script that is killed takes its servers with it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
