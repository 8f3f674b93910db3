#!/bin/sh
# All tests, part by part, and at the end the duration of each part. `make test` calls it. If a part
# fails, the others still run, and the whole fails.
set -u
cargo=${CARGO:-cargo}
status=0
told=

# part NAME COMMAND…
part() {
    name=$1
    shift
    began=$(date +%s)
    "$@" || status=1
    told="$told$(printf '  %-34s %5d s' "$name" $(($(date +%s) - began)))
"
}

# The whole workspace in each part: for one crate alone, cargo would choose other features of its
# dependencies and compile all of them once more.
tests() {
    "$cargo" test --locked --workspace --features failpoints --no-fail-fast "$@"
}

part "lints" make --no-print-directory lint
[ $status = 0 ] || exit $status
part "the page by itself" sh tools/console.sh check
[ $status = 0 ] || exit $status
rm -rf target/screenshots
part "compiling" tests --no-run
[ $status = 0 ] || exit $status
part "the rules alone" tests --lib --bins
part "against real servers" tests --test integration
part "benchmarks, in their smoke form" tests --bench benchmarks
part "examples in the documentation" tests --doc
[ -d target/screenshots ] && echo "Screenshots of the page: target/screenshots"
printf 'What took how long:\n%s' "$told"
exit $status
