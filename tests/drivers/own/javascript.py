"""node-postgres's suite: the driver, its pool and its cursors. npm's packages leave their tests out; Debian's source package holds them.

The driver's own tests are scripts that stop at their first failure: what would have come after it is not counted on that side."""

import json
import re
import shutil
import tarfile

from parts import source

from . import base
from .base import HERE, made, run

ENDS = re.compile(r"^(?P<name>.*?) (?P<mark>✔|FAILED!|\? - SKIPPED)$")


class NodePostgres:
    name = "node-postgres"
    version = "8.16.3"
    title = f"node-postgres {version} with pg-pool and pg-cursor"

    def prepare(self):
        for program in ("node", "npm"):
            if not shutil.which(program):
                raise base.Unavailable(f"{program} is missing")

        def make(folder):
            # The package's other archives are small libraries that npm has; they need not be there.
            wanted = f"node-postgres_{self.version}*.orig.tar.gz"
            try:
                source.apt("update", cwd=folder, release="sid")
                source.apt("source", "--download-only", "node-postgres", cwd=folder, release="sid", wants=wanted)
            except SystemExit as error:
                raise base.Unavailable(str(error)) from None
            packed = next(folder.glob(wanted))
            with tarfile.open(packed) as opened:
                opened.extractall(folder)
            for file in folder.glob("*.*"):
                if file.is_file():
                    file.unlink()
            tree = next(folder.iterdir())
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, tree / name)
            # A busy machine is no failure.
            suite = tree / "packages/pg/test/suite.js"
            suite.write_text(suite.read_text().replace("this.timeout = 5000", "this.timeout = 20000"))
            # Of the sources only the tests count: the packages as everybody has them stand where the tests look for them.
            run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=tree)

        self.tree = next(made(f"node-postgres-{self.version}", make).iterdir())

    def setup(self, server):
        server.passwords()
        # One test leaves a log-in halfway, and its script ends only when the server has lost patience.
        server.psql("ALTER SYSTEM SET authentication_timeout = '5s'")
        server.psql("SELECT pg_reload_conf()")

    # The suite wants to be asked for its password by SCRAM, and the gateway asks so where it knows the users.
    gateway = '[users.postgres]\n[users.scram_user]\npassword = "password"\n'

    def environment(self, port):
        secret = {f"SCRAM_TEST_PG{name}": value for name, value in
                  {"USER": "scram_user", "PASSWORD": "password", "HOST": "127.0.0.1", "PORT": str(port), "DATABASE": "postgres"}.items()}
        return base.environment(port, PGTESTNOSSL="1", TEST_TIMEOUT="20000", **secret)

    def run(self, port, folder, chosen, limit, tell):
        env, outcomes = self.environment(port), {}

        def note(name, outcome, why):
            if not chosen or chosen in name:
                outcomes[name] = (outcome, why)
                tell(name, outcome, why)

        url = f"postgres://postgres@127.0.0.1:{port}/postgres"
        driver = self.tree / "packages/pg"
        run("node", "script/create-test-tables.js", url, env=env, cwd=driver)
        for script in sorted((driver / "test/integration").rglob("*-tests.js")):
            name = str(script.relative_to(driver / "test/integration"))
            if not chosen or name in chosen or chosen in name:
                command = ["node", script, url]
                told = self.script(name, command, env, driver, folder, limit)
                if any(outcome == "failed" for _, outcome, _ in told):
                    told = self.script(name, command, env, driver, folder, limit)
                for test in told:
                    note(*test)
        for package in ("pg-pool", "pg-cursor"):
            self.mocha(package, env, folder, limit, note)
        return outcomes

    def script(self, name, command, env, cwd, folder, limit):
        """One of the driver's scripts. It names its tests as it goes, or is one test itself."""
        out = folder / "output"
        with open(out, "wb") as file:
            process = base.Process(command, env, cwd, file)
            ended = process.ended(limit)
            process.end()
        text = out.read_text(errors="replace")
        found = [match for match in (ENDS.match(line.strip()) for line in text.splitlines()) if match]
        told = [(f"{name}: {match['name']}", "passed" if match["mark"] == "✔" else "skipped", "")
                for match in found if match["mark"] != "FAILED!"]
        if ended and process.process.returncode == 0:
            return told or [(name, "passed", "")]
        failed = next((match["name"] for match in found if match["mark"] == "FAILED!"), None)
        why = next((line.strip() for line in text.splitlines() if re.search(r"Error\b|did not complete", line)), "")
        why = why if ended else f"took longer than {limit:.0f} s"
        which = f"{name}: {failed}" if failed else f"{name} (the script)" if found else name
        return [*told, (which, "failed", why or f"ended with {process.process.returncode}")]

    def mocha(self, package, env, folder, limit, note):
        report = folder / f"{package}.json"
        tree = self.tree / "packages" / package
        command = ["node", self.tree / "node_modules/mocha/bin/mocha.js", "--exit", "--retries", "1", "--timeout", "20000",
                   "--reporter", "json", "--reporter-option", f"output={report}"]
        with open(folder / f"{package}.output", "wb") as out:
            process = base.Process(command, env, tree, out)
            ended = process.ended(10 * limit)
            process.end()
        if not report.exists():
            note(f"{package} (the runner)", "failed", "ended without a report" if ended else f"took longer than {10 * limit:.0f} s")
            return
        told = json.loads(report.read_text())
        for outcome, tests in (("passed", told["passes"]), ("failed", told["failures"]), ("skipped", told["pending"])):
            for test in tests:
                note(f"{package}: {test['fullTitle']}", outcome, (test["err"].get("message") or "").split("\n")[0][:300])


SUITES = [NodePostgres()]
