"""What has to be installed: measuring tools, and the proxies to compare with.

Tools install themselves where that needs no question (root or sudo, apt-get). The proxies are services that their
packages may start, so they are installed only when asked for, and otherwise named.
"""

import os
import shutil
import subprocess
import sys

TOOLS = {"valgrind": "valgrind", "vgdb": "valgrind", "strace": "strace"}
PEERS = {"haproxy": "haproxy", "pgbouncer": "pgbouncer", "pgpool": "pgpool2"}
# Where a PgBouncer that is too old is replaced from.
NEWER_RELEASE = "trixie"


def say(text):
    """A line of progress, apart from the tables on standard output."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def missing(wanted):
    """Debian packages of the programs in `wanted` that are not there."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return sorted({package for program, package in wanted.items() if not shutil.which(program, path=path)})


def install(packages):
    """Installs Debian packages; whether it worked. Never asks for a password."""
    if not packages:
        return True
    if not shutil.which("apt-get"):
        return False
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if root and not shutil.which("sudo"):
        return False
    say(f"installing {' '.join(packages)} (apt-get)")
    environment = [*root, "env", "DEBIAN_FRONTEND=noninteractive"]
    quiet = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    subprocess.run([*environment, "apt-get", "update", "-qq"], **quiet)
    done = subprocess.run([*environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
                          **quiet)
    return done.returncode == 0


def newer_pgbouncer(directory):
    """Builds PgBouncer from a newer Debian release's source package, once; its path, or `None`."""
    binary = f"{directory}/pgbouncer-{NEWER_RELEASE}"
    if os.access(binary, os.X_OK):
        return binary
    needed = ["gcc", "libc6-dev", "make", "pkg-config", "libevent-dev", "libc-ares-dev", "libssl-dev", "dpkg-dev"]
    if not install(needed):
        return None
    say(f"building PgBouncer from Debian {NEWER_RELEASE}'s source package")
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "newer-pgbouncer")
    done = subprocess.run([script, NEWER_RELEASE, binary], stdout=subprocess.DEVNULL)
    return binary if done.returncode == 0 else None
