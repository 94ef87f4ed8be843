#!/bin/sh
# npm test: everything, from a fresh clone. Sets up, builds, checks and runs all tests against the build.
# Arguments go to vitest: npm test -- test/unit
set -eu
cd "$(dirname "$0")/.."
sh conf/install.sh
# Libraries of other languages. Tests go on without them: those that lack one say so and are skipped.
sh conf/install.sh python3-redis gcc libc6-dev libhiredis-dev || echo "Going on without them." >&2
echo "Node $(node --version), $(redis-server --version)"
npm run --silent build
npm run --silent check
# The tests then start dist/main.js instead of the source.
export TEST_DIST=1
exec node_modules/.bin/vitest run --config test/vitest.config.ts "$@"
