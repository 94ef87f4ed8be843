#!/bin/sh
# Sets up what Holdfast needs on this machine and says nothing when all is there.
#
#   sh conf/install.sh [--build] [PACKAGE …]
#
# Always: Node 20 or newer (checked), the npm packages, redis-server and its tools.
# --build: the compiled program in dist/, when it is missing or older than its source.
# PACKAGE: more Debian packages (haproxy, nutcracker, libhiredis-dev).
#
# It never starts a service, and it never touches a Redis that already runs.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

check_node() {
  version=$(node --version 2>/dev/null || echo none)
  major=${version#v}
  major=${major%%.*}
  case $major in
    '' | *[!0-9]*) major=0 ;;
  esac
  if [ "$major" -lt 20 ] || ! have npm; then
    say "Holdfast needs Node 20 or newer with npm (found: $version)."
    say "Install it from https://nodejs.org/en/download and try again."
    exit 1
  fi
}

# Whether node_modules holds what package-lock.json asks for.
npm_packages_present() {
  node -e '
    const read = (file) => JSON.parse(fs.readFileSync(file, "utf8")).packages;
    const [wanted, present] = [read("package-lock.json"), read("node_modules/.package-lock.json")];
    const missing = ([path, { version, optional }]) =>
      path !== "" && !optional && present[path]?.version !== version;
    process.exit(Object.entries(wanted).some(missing) ? 1 : 0);
  ' 2>/dev/null
}

install_npm_packages() {
  npm_packages_present && return 0
  say "Installing the npm packages …"
  # By the lock file, and without changing it. Not "npm ci": that refuses a lock file which does not list
  # the optional packages of every other platform.
  npm install --no-save --include=dev --no-audit --no-fund >&2
}

build() {
  if [ -f dist/main.js ]; then
    newer=$(find src package.json tsconfig*.json -newer dist/main.js | head -n 1)
    [ -n "$newer" ] || return 0
  fi
  say "Building …"
  npm run --silent build >&2
}

# Whether a package is there: by a program of its name, or by the word of the package manager.
present() {
  have "$1" || dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed$'
}

# The packages among the given ones that are missing.
missing_packages() {
  have redis-server || echo redis-server
  have redis-cli || echo redis-tools
  for package in "$@"; do
    present "$package" || echo "$package"
  done
}

install_packages() {
  wanted=$(missing_packages "$@" | tr '\n' ' ')
  wanted=${wanted% }
  [ -n "$wanted" ] || return 0
  if ! have apt-get; then
    say "Missing on this machine: $wanted. Install it with the package manager of your system and try again."
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    say "Missing on this machine: $wanted. Install it and try again:"
    say "  sudo apt-get update && sudo apt-get install $wanted"
    exit 1
  fi
  say "Installing $wanted …"
  without_starting_services apt_install "$wanted"
  for package in $wanted; do
    leave_service_off "$package"
  done
  left=$(missing_packages "$@" | tr '\n' ' ')
  if [ -n "$left" ]; then
    say "Could not install ${left% }. Install it by hand and try again."
    exit 1
  fi
}

apt_install() {
  # A stale package list is still worth a try, so a failing update does not end it.
  apt-get update -qq >&2 || say "apt-get update failed."
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 # one word for each package
  apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends $1 >&2 || true
}

# Debian starts a service when its package is installed, unless this file forbids it. One that is
# already there is the administrator's word and stays as it is.
policy=/usr/sbin/policy-rc.d

without_starting_services() {
  if [ -e "$policy" ]; then
    "$@"
    return
  fi
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  "$@"
  rm -f "$policy"
  trap - EXIT INT TERM HUP
}

# The package was not there before, so its service is there only because of us.
leave_service_off() {
  if [ -d /run/systemd/system ]; then
    systemctl disable --now "$1" >/dev/null 2>&1 || true
  elif [ -e "/etc/init.d/$1" ]; then
    "/etc/init.d/$1" stop >/dev/null 2>&1 || true
    update-rc.d "$1" disable >/dev/null 2>&1 || true
  fi
}

with_build=no
if [ "${1:-}" = --build ]; then
  with_build=yes
  shift
fi
check_node
install_packages "$@"
install_npm_packages
[ "$with_build" = no ] || build
