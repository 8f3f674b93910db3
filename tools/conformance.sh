#!/bin/sh
# The Autobahn cases against the gateway's WebSocket layer. An echo server (examples/echo.rs)
# answers them. Sections 1 to 7 and 10 run under the limits of a pod. Section 9 runs with higher
# limits for writing and for rates: its messages are as large as 16 MiB, are echoed, and come by the
# thousand. Sections 12 and 13 are about compression, which is never negotiated. Reports are in
# target/conformance/.
set -eu
cd "$(dirname "$0")/.."
fail() { echo "conformance: $*" >&2; exit 1; }

environment=.tools/conformance
# An environment that was moved, or whose Python is gone, does not run.
if ! "$environment/bin/kosoku" --help >/dev/null 2>&1; then
    python3 -m venv --clear "$environment" || fail "python3 with venv is missing"
    "$environment/bin/pip" install --quiet --require-hashes --requirement tools/conformance.txt ||
        fail "the runner of tools/conformance.txt cannot be had for this machine"
fi

# cases NAME [SETTING...] -- [--include CASES...]: one echo server, one run.
cases() {
    name=$1
    reports=target/conformance/$name
    shift
    settings=
    while [ "$1" != -- ]; do
        settings="$settings $1"
        shift
    done
    shift
    # The address of an earlier run must not be taken for this one's.
    rm -rf "$reports"
    mkdir -p "$reports"
    # shellcheck disable=SC2086
    target/debug/examples/echo $settings >"$reports/address" &
    echo_server=$!
    trap 'kill $echo_server 2>/dev/null || true' EXIT
    tries=0
    while ! [ -s "$reports/address" ] && [ "$tries" -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.2
    done
    address=$(cat "$reports/address")
    [ -n "$address" ] || fail "the echo server did not start"
    "$environment/bin/kosoku" --outdir "$reports" "$@" "$address"
    kill "$echo_server"
    trap - EXIT
}

cases limits -- -i '1.*' -i '2.*' -i '3.*' -i '4.*' -i '5.*' -i '6.*' -i '7.*' -i '10.*'
cases raised --max-write-buffer-bytes=67108864 --message-rate=100000 --message-burst=100000 -- -i '9.*'
