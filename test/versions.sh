#!/bin/sh
# npm run versions: the tests of failover against other servers, one after another; a line for each at the end.
# Names of servers (test/other-server.sh) choose among them; what begins with test/ goes to vitest:
#   npm run versions -- valkey-9 redis-6.0 test/integration test/chaos
set -u
cd "$(dirname "$0")/.."
sh conf/install.sh || exit 1
npm run --silent build || exit 1

names=
files=
for word in "$@"; do
  case $word in
    test/*) files="$files $word" ;;
    *) names="$names $word" ;;
  esac
done
: "${names:=$(sh test/other-server.sh --names)}"
: "${files:=test/chaos/matrix.test.ts test/integration/failover.test.ts test/integration/history.test.ts
  test/integration/self-promotion.test.ts test/integration/sentinel.test.ts test/integration/switchover.test.ts}"

results=$(mktemp)
trap 'rm -f "$results"' EXIT
failed=0
for name in $names; do
  printf '\n== %s\n' "$name"
  if program=$(sh test/other-server.sh "$name"); then
    # shellcheck disable=SC2086 # one word for each file
    TEST_DIST=1 TEST_REDIS_SERVER=$program NO_COLOR=1 node_modules/.bin/vitest run --config test/vitest.config.ts \
      --project integration $files 2>&1 | tee "$results.run"
    outcome=$(sed -n 's/^ *Tests  *//p' "$results.run")
    rm -f "$results.run"
    version=$("$program" --version | cut -d ' ' -f 1,3)
  else
    outcome='could not be fetched'
    version=-
  fi
  case $outcome in
    '' | *failed* | *fetched*) failed=1 ;;
  esac
  printf '%-12s %-16s %s\n' "$name" "$version" "${outcome:-did not run}" >>"$results"
done
echo
cat "$results"
exit "$failed"
