"""The three costs of a transaction: user-mode instructions, system calls, processor time.

Instructions, and system calls of one client, hardly depend on how busy the machine is; processor time does, and says
more. Instructions and system calls are the difference of a long and a short run, so that log-ins do not count.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import time

from . import load as loads
from . import process


# A process is at rest that executes less than this many instructions in a second.
REST = 500_000


class Instructions:
    """User-mode instructions under valgrind's callgrind, told to write its counts between runs."""

    def __init__(self, root):
        # One name for all processes of a family: callgrind adds `.PID` and, for each dump, `.NUMBER`.
        self.directory = f"{root}/callgrind"
        shutil.rmtree(self.directory, ignore_errors=True)
        os.mkdir(self.directory)
        os.chmod(self.directory, 0o777)
        self.idle_per_second = 0.0
        # The file of the last dump, for callgrind_annotate.
        self.last = None

    def wrapper(self, lines=False):
        """What goes before the command."""
        return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self.directory}/out.%p",
                f"--vgdb-prefix={self.directory}/vgdb", f"--dump-line={'yes' if lines else 'no'}",
                "--vgdb=yes", "--error-limit=no", "-q"]

    def settle(self, running, limit=60):
        """Waits until the process is at rest: what a start and the first log-in set off is over.

        Then finds what it executes in a second when nobody asks for anything.
        """
        end = time.monotonic() + limit
        self._idle(running)
        while (rate := self._idle(running)) > REST:
            if time.monotonic() > end:
                raise process.Failed(f"{running.family.name} executes {rate:,.0f} instructions a second though nobody "
                                     "asks for anything")
        self.idle_per_second = rate

    def _idle(self, running, seconds=2.0):
        self.dump(running)
        start = time.monotonic()
        time.sleep(seconds)
        return self.dump(running) / (time.monotonic() - start)

    def measure(self, running, load, transactions):
        """Instructions for each transaction. The first run fills caches and pools and is not counted."""
        loads.run(load, running.port, transactions=max(20, transactions // 10))
        self.dump(running)
        short = self._run(running, load, transactions)
        long = self._run(running, load, 3 * transactions)
        return (long - short) / (2 * transactions * load.clients)

    def _run(self, running, load, transactions):
        start = time.monotonic()
        loads.run(load, running.port, transactions=transactions, limit=300)
        elapsed = time.monotonic() - start
        return self.dump(running) - self.idle_per_second * elapsed

    def measure_whole(self, start, load, transactions):
        """The same for a proxy that forks, whose children vgdb cannot reach: two lives, each counted at its end.

        `start()` gives a running proxy.
        """
        totals = []
        for length in (transactions, 3 * transactions):
            seen = self._files()
            running = start()
            try:
                loads.run(load, running.port, transactions=length, limit=300)
            finally:
                running.stop(60)
            totals.append(_instructions_in(self._files() - seen))
        return (totals[1] - totals[0]) / (2 * transactions * load.clients)

    def dump(self, running):
        """Instructions of the process since the last dump."""
        seen = self._files()
        done = subprocess.run(["vgdb", f"--vgdb-prefix={self.directory}/vgdb", f"--pid={running.family.pid}", "dump"],
                              capture_output=True, text=True, **process.as_account(running.account))
        if done.returncode != 0:
            raise process.Failed(f"vgdb could not reach {running.family.name}: {done.stderr.strip()[-300:]}")
        new = self._files() - seen
        self.last = max(new, default=None)
        return _instructions_in(new)

    def _files(self):
        return set(glob.glob(f"{self.directory}/out.*"))


def _instructions_in(paths):
    total = 0
    for path in paths:
        with open(path) as f:
            total += int(re.search(r"^totals: (\d+)", f.read(), re.M)[1])
    return total


def system_calls(running, load, transactions):
    """System calls for each transaction, all threads and processes."""
    counter = _perf if _has_perf() else _strace if shutil.which("strace") else None
    if counter is None:
        raise process.Failed("nothing here counts them: install linux-perf or strace")
    loads.run(load, running.port, transactions=max(20, transactions // 10))
    short = counter(running, load, transactions)
    long = counter(running, load, 3 * transactions)
    return (long - short) / (2 * transactions * load.clients)


def system_call_counter():
    """What counts them here, in words."""
    return "perf" if _has_perf() else "strace" if shutil.which("strace") else "nothing"


def processor(running, cluster, load, seconds):
    """(microseconds of the proxy, of PostgreSQL, transactions a second) for each transaction of a run."""
    proxy, servers = _cpu(running), cluster.cpu()
    outcome = loads.run(load, running.port, seconds=seconds)
    each = 1e6 / outcome.transactions
    return (_cpu(running) - proxy) * each, (cluster.cpu() - servers) * each, outcome.per_second


def _cpu(running):
    return running.family.cpu() if running.family else 0.0


def _has_perf():
    if not shutil.which("perf"):
        return False
    probe = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"]
    done = subprocess.run(probe, capture_output=True, text=True)
    return done.returncode == 0 and re.search(r"^\d+,", done.stderr, re.M) is not None


def _perf(running, load, transactions):
    # perf acknowledges `enable` on the second pipe: nothing is missed, and nobody sleeps.
    control, theirs = os.pipe()
    answer_in, answer = os.pipe()
    command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "--delay=-1",
               f"--control=fd:{control},{answer}", "-p", ",".join(map(str, running.family.pids()))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=(control, answer)) as counter:
        try:
            os.close(control)
            os.close(answer)
            os.write(theirs, b"enable\n")
            os.read(answer_in, 16)
            loads.run(load, running.port, transactions=transactions)
        finally:
            counter.send_signal(signal.SIGINT)
            text = counter.communicate()[1]
            os.close(theirs)
            os.close(answer_in)
    found = re.search(r"^(\d+),.*raw_syscalls:sys_enter", text, re.M)
    if not found:
        raise process.Failed(f"perf counted nothing: {text.strip()[-300:]}")
    return int(found[1])


def _strace(running, load, transactions):
    arguments = [a for pid in running.family.pids() for a in ("-p", str(pid))]
    with subprocess.Popen(["strace", "-c", "-f", *arguments], stderr=subprocess.PIPE, text=True) as counter:
        try:
            # One line, `Process N attached`, for each process.
            for _ in running.family.pids():
                counter.stderr.readline()
            loads.run(load, running.port, transactions=transactions, limit=300)
        finally:
            counter.send_signal(signal.SIGINT)
            text = counter.communicate()[1]
    found = re.search(r"^100\.00\s+\S+\s+(?:\d+\s+)?(\d+)(?:\s+\d+)?\s+total", text, re.M)
    if not found:
        raise process.Failed(f"strace counted nothing: {text.strip()[-300:]}")
    return int(found[1])
