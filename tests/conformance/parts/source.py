"""Where the suites come from: the source package of the installed PostgreSQL, and what is compiled of it.

Both are kept in the user's cache. Nothing is configured or built but the few files that a suite needs.
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "pointsman" / "conformance"


def fail(text):
    sys.exit(f"conformance: {text}")


@functools.cache
def program(name):
    """A program of the newest PostgreSQL installed."""
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / name).exists():
            return str(folder / name)
    return shutil.which(name) or fail(f"{name} is missing: scripts/install-missing.sh postgresql installs it")


@functools.cache
def version():
    """The version of the installed server: 15.18."""
    out = subprocess.run([program("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"(\d+\.\d+)", out).group(1)


def mirrors():
    """Where the system's own apt has its packages from: sites and releases, in that order."""
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [tuple(line.split()) for line in dict.fromkeys(lines)]


def apt(*arguments, cwd, release=None, wants=None):
    """apt-get over lists of our own, which name source packages too; the system's stay as they are. With `release`, over that
    release's source packages. What cannot be had is no failure if a file that matches `wants` came all the same."""
    state = CACHE / (f"apt-{release}" if release else "apt")
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    system = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)
    suite = system.get("VERSION_CODENAME", "").strip('"')
    places = mirrors() if shutil.which("apt-get") and (release or system.get("ID") == "debian") else []
    main = next((site for site, of in places if of == suite), None)
    if not main:
        fail("fetching the suite is written for Debian; put PostgreSQL's source tree into "
             f"{CACHE}/source-{version()} by hand, and its regress.so beside it")
    kinds = ["deb-src"] if release else ["deb", "deb-src"]
    (state / "sources.list").write_text("".join(
        f"{kind} {site} {of} main\n" for site, of in ([(main, release)] if release else places) for kind in kinds))
    options = [f"Dir::Etc::sourcelist={state}/sources.list", "Dir::Etc::sourceparts=/nonexistent",
               f"Dir::State::lists={state}/lists", f"Dir::Cache={state}/cache", "APT::Sandbox::User=root"]
    command = ["apt-get", "-qq"] + [word for option in options for word in ("-o", option)]
    done = subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True)
    if done.returncode and not (wants and any(pathlib.Path(cwd).glob(wants))):
        fail(f"apt-get {' '.join(arguments)}: {done.stderr.strip()}")


def package(name):
    """A package of this machine's, with its version where the system knows it: postgresql-15=15.18-0+deb12u1."""
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True) if shutil.which("dpkg-query") else None
    return f"{name}={asked.stdout}" if asked and asked.returncode == 0 and asked.stdout else name


@functools.cache
def tree():
    """The source tree of the installed version."""
    number = version()
    major = number.split(".")[0]
    tree = CACHE / f"source-{number}"
    if not tree.is_dir():
        print(f"fetching the source package of PostgreSQL {number}", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        apt("update", cwd=CACHE)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            # The index may name a newer one first.
            apt("source", "--download-only", package(f"postgresql-{major}"), cwd=scratch)
            archive = next(pathlib.Path(scratch).glob("*.orig.tar.*"), None) or fail("no archive in the source package")
            if number not in archive.name:
                fail(f"the source package is {archive.name}, the installed server {number}; upgrade one of them")
            subprocess.run(["tar", "xf", archive, "-C", scratch], check=True)
            next(p for p in pathlib.Path(scratch).iterdir() if p.is_dir()).rename(tree)
    return tree


@functools.cache
def headers():
    """The root under which the headers and static libraries of the server and of libpq lie."""
    number = version()
    major = number.split(".")[0]
    needed = [f"usr/include/postgresql/{major}/server", "usr/include/postgresql/libpq-fe.h", f"usr/lib/postgresql/{major}/lib/libpgport.a"]
    if all((pathlib.Path("/") / path).exists() for path in needed):
        return pathlib.Path("/")
    headers = CACHE / f"headers-{number}"
    if not headers.is_dir():
        print("fetching the server's headers", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        apt("update", cwd=CACHE)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            apt("download", f"postgresql-server-dev-{major}", "libpq-dev", cwd=scratch)
            unpacked = pathlib.Path(scratch) / "unpacked"
            for package in pathlib.Path(scratch).glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, unpacked], check=True)
            unpacked.rename(headers)
    return headers


def compile(output, *words, includes=(), frontend=False):
    """Compiles `words` (sources and options) into `output`, unless it is there."""
    if output.exists():
        return output
    major = version().split(".")[0]
    # The tree's own headers first: those of the package may be a newer minor version's, and stand in only for what
    # configure makes.
    own = [tree() / "src" / "include", *includes, headers() / f"usr/include/postgresql/{major}/server", headers() / "usr/include/postgresql"]
    if frontend:
        static = headers() / f"usr/lib/postgresql/{major}/lib"
        # The library that psql uses: that of the installed version.
        shared = next(pathlib.Path("/usr/lib").glob("*/libpq.so.5"), None) or fail("libpq.so.5 is missing")
        words = [*words, static / "libpgfeutils.a", shared, static / "libpgcommon.a", static / "libpgport.a", "-lm"]
    subprocess.run(["cc", "-O1", "-w", *[word for path in own for word in ("-I", path)], "-o", output, *words], check=True)
    return output


def regress_library():
    """The C functions of the regression suite."""
    return compile(tree() / "regress.so", "-shared", "-fPIC", tree() / "src/test/regress/regress.c")


def isolationtester():
    """The isolation suite's tester. It knows its sessions by process id; what a proxy tells at log-in is a key for cancel
    requests, so this one asks the server for the number. Who notified is told by the number that was told at log-in."""
    folder = tree() / "src/test/isolation"
    text = (folder / "isolationtester.c").read_text()
    for place, asked in [
        ("backend_pid = PQbackendPID(conns[i].conn)",
         'backend_pid = atoi(PQgetvalue(PQexec(conns[i].conn, "SELECT pg_catalog.pg_backend_pid()"), 0, 0))'),
        ("notify->be_pid == conns[i + 1].backend_pid", "notify->be_pid == PQbackendPID(conns[i + 1].conn)"),
    ]:
        if text.count(place) != 1:
            fail(f"isolationtester.c does not say {place}")
        text = text.replace(place, asked)
    source = folder / "asking_tester.c"
    source.write_text(text)
    output = tree() / "asking_tester"
    return compile(output, source, folder / "specparse.c", includes=[folder, tree() / "src/interfaces/libpq"], frontend=True)


def libpq_pipeline():
    """The program of libpq's pipeline tests."""
    folder = tree() / "src/test/modules/libpq_pipeline"
    return compile(tree() / "libpq_pipeline", folder / "libpq_pipeline.c", includes=[tree() / "src/interfaces/libpq"], frontend=True)
