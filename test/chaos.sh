#!/bin/sh
# npm run chaos: every fault in every mode, against the build; a table of what clients noticed at the end. Then a
# million comparisons of reads with what they had to see: HOLDFAST_PAIRS, see test/chaos/consistency.test.ts.
# HOLDFAST_ROUNDS (default 3), HOLDFAST_CELL and HOLDFAST_SEED are explained in test/chaos/matrix.test.ts.
set -eu
cd "$(dirname "$0")/.."
sh conf/install.sh
npm run --silent build
export TEST_DIST=1 HOLDFAST_CELLS=all HOLDFAST_ROUNDS="${HOLDFAST_ROUNDS:-3}"
exec node_modules/.bin/vitest run --config test/vitest.config.ts --project integration \
  test/chaos/matrix.test.ts test/chaos/consistency.test.ts "$@"
