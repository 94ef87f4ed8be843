#!/bin/sh
# npm test: everything, from a fresh clone. Sets up, builds, checks and runs all tests against the build.
# Arguments go to vitest: npm test -- test/unit
set -eu
cd "$(dirname "$0")/.."
sh conf/install.sh
# Libraries of other languages. Tests go on without them: those that lack one say so and are skipped.
sh conf/install.sh python3-redis gcc libc6-dev libhiredis-dev || echo "Going on without them." >&2
# Valkey, fetched and not installed: what failover is made of runs with it a second time.
if ! TEST_OTHER_SERVER=$(sh test/other-server.sh valkey-8.1); then
  echo "No Valkey could be fetched: going on without it." >&2
  TEST_OTHER_SERVER=
fi
export TEST_OTHER_SERVER
echo "Node $(node --version), $(redis-server --version)${TEST_OTHER_SERVER:+, $("$TEST_OTHER_SERVER" --version)}"
npm run --silent build
npm run --silent check
# The tests then start dist/main.js instead of the source.
export TEST_DIST=1
exec node_modules/.bin/vitest run --config test/vitest.config.ts "$@"
