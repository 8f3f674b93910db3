#!/bin/sh
# Builds the page of console/ into console/dist, if its sources are newer. `make console` and `make
# run` call it. With the word `where-possible` a page that cannot be built is one line and no failure;
# with `check` its types are checked and its unit tests run. Needs Python 3 and no Node.js.
set -eu
cd "$(dirname "$0")/.."
built=console/dist/index.html
sources="console/src console/build.mjs console/package.json console/package-lock.json console/tsconfig.json"

# The lock is copied beside the packages once all of them are there. (`set -e` does not hold in a
# condition, and this runs in one.)
bring_packages() {
    sh tools/find-or-install.sh nodejs || return 1
    cmp -s console/package-lock.json console/node_modules/.installed && return
    # Where the registry is out of reach, that is known soon.
    npm_config_fetch_retries=1 npm_config_fetch_retry_mintimeout=2000 \
        sh tools/npm.sh console ci --ignore-scripts --no-audit --no-fund --loglevel=error &&
        cp console/package-lock.json console/node_modules/.installed
}

build() {
    bring_packages && sh tools/npm.sh console run --silent build
}

case ${1:-} in
    check)
        bring_packages
        sh tools/npm.sh console run --silent check
        sh tools/npm.sh console test --silent
        exit
        ;;
esac
# shellcheck disable=SC2086
[ -f "$built" ] && [ -z "$(find $sources -newer "$built")" ] && exit
echo "make console: building the page"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if build >"$log" 2>&1; then
    exit
elif [ "${1:-}" = where-possible ]; then
    echo "make console: the page cannot be built (are the registries of Python and npm out of reach?): going on without it"
else
    cat "$log" >&2
    exit 1
fi
