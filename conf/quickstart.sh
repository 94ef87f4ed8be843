#!/bin/sh
# npm run quickstart: installs what is missing, then runs the three-node set and the proxy (quickstart.mjs).
set -eu
cd "$(dirname "$0")/.."
sh conf/install.sh --build
# In the place of this shell, so that a signal meant for the quickstart reaches it.
exec node conf/quickstart.mjs "$@"
