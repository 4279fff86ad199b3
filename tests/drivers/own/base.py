"""What the suites have in common: a place to lie in, a process to run in, and an outcome for each test.

A test's outcome is a pair: "passed", "failed" or "skipped", and the first line that says why.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from parts.servers import die_with_parent

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "pointsman" / "driver-suites"


class Unavailable(Exception):
    """The suite cannot be had here."""


def run(*command, **options):
    """Runs a step of an installation; what it says is told only if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise Unavailable(f"{' '.join(str(word) for word in command[:6])}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def made(name, make):
    """The folder `name` in the cache, made by `make(folder)` once, whole or not at all."""
    folder = CACHE / name
    if not folder.is_dir():
        print(f"fetching {name}", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = pathlib.Path(tempfile.mkdtemp(dir=CACHE))
        try:
            scratch.chmod(0o755)
            make(scratch)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def environment(port, **more):
    """As libpq reads it, which most drivers do; nothing of what the caller has set for himself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "POINTSMAN"))}
    return {**kept, "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres",
            "PYTHONDONTWRITEBYTECODE": "1", **more}


class Process:
    """A process in a group of its own, so that what it leaves behind ends with it."""

    def __init__(self, command, env, cwd, out):
        self.process = subprocess.Popen([str(word) for word in command], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                        stdout=out, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent)

    def ended(self, seconds):
        try:
            self.process.wait(timeout=seconds)
            return True
        except subprocess.TimeoutExpired:
            return False

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def recorded(command, env, cwd, folder, limit, tell):
    """Runs a runner that records each test in POINTSMAN_RECORD as it goes; tests that fail have a second try."""
    outcomes = {}
    record_once(outcomes, command, env, cwd, folder, limit, tell)
    failed = {name: outcomes.pop(name) for name, (outcome, _) in list(outcomes.items()) if outcome == "failed"}
    if failed:
        record_once(outcomes, command, env, cwd, folder, limit, tell)
    # What fails with its whole class has no name of its own the second time.
    return {**{name: outcome for name, outcome in failed.items() if name not in outcomes}, **outcomes}


def record_once(outcomes, command, env, cwd, folder, limit, tell):
    """One that takes longer than `limit` seconds, or brings the runner down, has failed, and the runner begins again after it."""
    record, done = folder / "record", folder / "done"
    while True:
        record.write_text("")
        done.write_text("\n".join(outcomes))
        with open(folder / "output", "ab") as out:
            process = Process(command, {**env, "POINTSMAN_RECORD": str(record), "POINTSMAN_DONE": str(done)}, cwd, out)
            running, since, read = None, time.monotonic(), 0
            while True:
                ended = process.ended(0.2)
                text = record.read_text()
                lines, read = text[read:text.rfind("\n") + 1].splitlines(), text.rfind("\n") + 1
                for line in lines:
                    name, outcome, why = json.loads(line)
                    running, since = (name, time.monotonic()) if outcome == "starts" else (None, time.monotonic())
                    if outcome != "starts":
                        outcomes[name] = (outcome, why)
                        tell(name, outcome, why)
                if ended:
                    break
                # Collecting and setting up may take a while.
                if time.monotonic() - since > (limit if running else 10 * limit):
                    break
            process.end()
        if running is None:
            return
        why = "brought the test runner down" if ended else f"took longer than {limit:.0f} s"
        outcomes[running] = ("failed", why)
        tell(running, "failed", why)
