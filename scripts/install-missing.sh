#!/usr/bin/env bash
# install-missing.sh WHAT...: installs what is missing on this machine, or says in one line what to install.
#   compiler     a C compiler and linker, which Rust needs
#   c++          a C++ compiler, for the fuzz targets
#   postgresql   the server with pg_basebackup, psql and pgbench
#   wasm         the compiler's WebAssembly target
#   valgrind     counts instructions for the budget, where the system has it
#   drivers      the drivers and ORMs of tests/drivers for Python and JavaScript, into the target directory
#   java         a JDK and pgjdbc
# What is there is left alone, and nothing is asked of the network then.
set -euo pipefail
cd "$(dirname "$0")/.."
target_dir=${CARGO_TARGET_DIR:-$PWD/target}

say() { echo "pointsman: $*" >&2; }
stop() {
    say "$@"
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# With the rights that package managers need, or a failure that the caller turns into words.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        return 1
    fi
}

apt_updated=''
# packages APT DNF APK BREW: each a list of names in one word; installs this system's.
packages() {
    local names
    if has apt-get; then
        names=$1
        say "installing $names (apt-get)"
        if [[ -z $apt_updated ]]; then
            as_root apt-get update -qq || stop "install these packages: $names"
            apt_updated=yes
        fi
        # shellcheck disable=SC2086  # a list of names
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $names >/dev/null ||
            stop "install these packages: $names"
    elif has dnf; then
        names=$2
        say "installing $names (dnf)"
        # shellcheck disable=SC2086
        as_root dnf install -y -q $names || stop "install these packages: $names"
    elif has apk; then
        names=$3
        say "installing $names (apk)"
        # shellcheck disable=SC2086
        as_root apk add -q $names || stop "install these packages: $names"
    elif has brew; then
        names=$4
        say "installing $names (brew)"
        # shellcheck disable=SC2086
        brew install -q $names || stop "install these packages: $names"
    else
        stop "install PostgreSQL's server with pgbench, python3 with venv, node with npm and a C compiler: no package manager that this script knows was found"
    fi
}

# As src/demo/install.rs looks for it.
postgresql_bin() {
    local directory
    for directory in "${POINTSMAN_PG_BIN:-}" ${PATH//:/ } "$(pg_config --bindir 2>/dev/null || true)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* /usr/local/pgsql/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [[ -n $directory && -x $directory/initdb && -x $directory/postgres && -x $directory/pg_basebackup ]]; then
            echo "$directory"
            return 0
        fi
    done
    return 1
}

install_compiler() {
    has cargo || stop "install Rust: https://rustup.rs"
    has cc || packages 'gcc libc6-dev' gcc 'gcc musl-dev' gcc
}

install_cxx() {
    has c++ || packages g++ gcc-c++ g++ gcc
}

install_postgresql() {
    postgresql_bin >/dev/null ||
        packages postgresql 'postgresql-server postgresql-contrib' 'postgresql postgresql-contrib postgresql-client' postgresql@17
    local bin
    bin=$(postgresql_bin) || stop "PostgreSQL's server programs were not found: set POINTSMAN_PG_BIN to the directory that holds initdb"
    if [[ ! -x $bin/pgbench ]] && ! has pgbench; then
        packages postgresql-contrib postgresql-contrib postgresql-contrib postgresql@17
    fi
    if [[ ! -x $bin/psql ]] && ! has psql; then
        packages postgresql-client postgresql postgresql-client postgresql@17
    fi
}

install_valgrind() {
    # tests/budget/run says so and measures nothing elsewhere.
    [[ $(uname -s) == Linux ]] || return 0
    has valgrind || packages valgrind valgrind valgrind valgrind
}

install_wasm() {
    local target=wasm32-unknown-unknown
    [[ -d $(rustc --print sysroot)/lib/rustlib/$target ]] && return
    has rustup || stop "install the Rust standard library for $target (rustup target add $target)"
    say "installing the Rust target $target"
    rustup target add "$target" >/dev/null 2>&1 || stop "rustup target add $target failed: run it and see why"
}

# The private environments are made anew when the list of what belongs into them changes.
install_drivers() {
    local drivers=$target_dir/drivers python=$target_dir/drivers/python node=$target_dir/drivers/node
    mkdir -p "$drivers"
    if ! cmp -s tests/drivers/requirements.txt "$python/requirements.txt"; then
        python3 -c 'import ensurepip, venv' 2>/dev/null ||
            packages 'python3 python3-venv' python3 'python3 py3-pip' python3
        say "installing Python's drivers into $python"
        rm -rf "$python"
        python3 -m venv "$python"
        "$python/bin/pip" install --quiet --disable-pip-version-check -r tests/drivers/requirements.txt ||
            stop "pip could not install what tests/drivers/requirements.txt names"
        cp tests/drivers/requirements.txt "$python/"
    fi
    if ! cmp -s tests/drivers/package-lock.json "$node/package-lock.json"; then
        if ! has node || ! has npm; then packages 'nodejs npm' nodejs 'nodejs npm' node; fi
        say "installing JavaScript's drivers into $node"
        rm -rf "$node"
        mkdir -p "$node"
        cp tests/drivers/package.json "$node/"
        cp tests/drivers/package-lock.json "$node/"
        # npm takes a folder behind a symbolic link for another package.
        npm --prefix "$(cd "$node" && pwd -P)" ci --silent --no-audit --no-fund ||
            { rm -rf "$node" && stop "npm could not install what tests/drivers/package.json names"; }
    fi
}

install_java() {
    local jar=${POINTSMAN_TEST_PGJDBC:-/usr/share/java/postgresql.jar}
    if has apt-get; then
        # The source is run as it is, which needs the compiler.
        has javac || packages default-jdk-headless '' '' ''
        [[ -e $jar ]] || packages libpostgresql-jdbc-java '' '' ''
    fi
    has javac || stop "install a JDK, 17 or later"
    [[ -e $jar ]] || stop "pgjdbc was not found: set POINTSMAN_TEST_PGJDBC to its jar"
}

for what in "$@"; do
    case $what in
        compiler) install_compiler ;;
        c++) install_cxx ;;
        postgresql) install_postgresql ;;
        wasm) install_wasm ;;
        valgrind) install_valgrind ;;
        drivers) install_drivers ;;
        java) install_java ;;
        *) stop "install-missing.sh does not know $what" ;;
    esac
done
