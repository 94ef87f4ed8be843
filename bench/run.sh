#!/bin/sh
# npm run bench: installs what the benches compare with, builds, and runs one bench or all.
#
#   sh bench/run.sh all|load|memory|failover|pubsub|blocking|reads [--quick] [option …]
set -eu
cd "$(dirname "$0")/.."
which=${1:-all}
[ $# -eq 0 ] || shift
sh conf/install.sh --build haproxy nutcracker
# Thousands of clients need thousands of files, here and in the proxies that inherit the limit.
ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -H -n)"

case $which in
  load | memory | failover | pubsub | blocking | reads) exec node --import tsx "bench/$which.ts" "$@" ;;
  all)
    for name in load memory reads failover blocking pubsub; do
      node --import tsx "bench/$name.ts" "$@"
    done
    ;;
  *)
    echo "Usage: sh bench/run.sh all|load|memory|failover|pubsub|blocking|reads [--quick] [option …]" >&2
    exit 2
    ;;
esac
