"""tokio-postgres's suite, which its crate holds. The version is the one that this repository's own tests use."""

import json
import os
import pathlib
import re
import shutil

from . import base
from .base import ROOT, made, run


def crate(name, manifest):
    """A crate's manifest path and version, as the lock file beside `manifest` has it."""
    told = run("cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", manifest)
    found = next(package for package in json.loads(told)["packages"] if package["name"] == name)
    return pathlib.Path(found["manifest_path"]).parent, found["version"]


class TokioPostgres:
    name = "tokio-postgres"
    title = "tokio-postgres"

    def prepare(self):
        lies, version = crate("tokio-postgres", ROOT / "Cargo.toml")
        self.title = f"tokio-postgres {version}"

        def make(folder):
            tree = folder / "tokio-postgres"
            shutil.copytree(lies, tree)
            self.listen_to_port(tree / "tests/test")
            # A workspace of its own, wherever it lies.
            with open(tree / "Cargo.toml", "a") as manifest:
                manifest.write("\n[workspace]\n")
            target = folder / "target"
            env = {**os.environ, "CARGO_TARGET_DIR": str(target)}
            told = run("cargo", "test", "--locked", "--test", "test", "--no-run", "--message-format=json", "--config", "profile.test.debug=0",
                       cwd=tree, env=env)
            built = [json.loads(line) for line in told.splitlines()]
            program = next(line["executable"] for line in built if line.get("executable"))
            shutil.copy(program, folder / "program")
            shutil.rmtree(target)

        self.program = made(f"tokio-postgres-{version}", make) / "program"

    @staticmethod
    def listen_to_port(tests):
        """The tests speak to port 5433: to PGPORT instead."""
        for file in tests.rglob("*.rs"):
            text = file.read_text()
            if "5433" not in text:
                continue
            text = text.replace('TcpStream::connect("127.0.0.1:5433")', 'TcpStream::connect(here("127.0.0.1:5433"))')
            text = text.replace("tokio_postgres::connect(s, NoTls)", "tokio_postgres::connect(&here(s), NoTls)")
            text = re.sub(r'tokio_postgres::connect\(\s*("(?:[^"\\]|\\.)*")', r"tokio_postgres::connect(&here(\1)", text)
            text += '\nfn here(text: &str) -> String {\n    text.replace("5433", &std::env::var("PGPORT").unwrap())\n}\n'
            file.write_text(text)

    def setup(self, server):
        server.passwords()
        for extension in ("hstore", "citext", "ltree"):
            server.psql(f"CREATE EXTENSION {extension}")

    def run(self, port, folder, chosen, limit, tell):
        env, outcomes = base.environment(port), {}
        for line in run(self.program, "--list", env=env).splitlines():
            name = line.removesuffix(": test")
            if name == line or (chosen and chosen not in name):
                continue
            outcome = self.one(name, env, folder, limit)
            if outcome[0] == "failed":
                outcome = self.one(name, env, folder, limit)
            outcomes[name] = outcome
            tell(name, *outcome)
        return outcomes

    def one(self, name, env, folder, limit):
        out = folder / "output"
        with open(out, "wb") as file:
            process = base.Process([self.program, "--exact", name], env, folder, file)
            ended = process.ended(limit)
            process.end()
        text = out.read_text(errors="replace")
        if not ended:
            return "failed", f"took longer than {limit:.0f} s"
        if process.process.returncode == 0:
            return "skipped" if "1 ignored" in text else "passed", ""
        lines = text.splitlines()
        at = next((number for number, line in enumerate(lines) if "panicked at" in line), 0)
        return "failed", " ".join(line.strip() for line in lines[at:at + 3])[:300]


SUITES = [TokioPostgres()]
