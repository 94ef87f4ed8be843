#!/bin/sh
# Another server than the one installed, to run the tests against: fetches it from Debian, installs nothing, and
# prints the path of the program. What is there already is not fetched again.
#
#   sh test/other-server.sh NAME        one of those below
#   sh test/other-server.sh --names     all names
#
# apt resolves, fetches and verifies the packages with a configuration of its own, as if nothing were installed; they
# are unpacked in node_modules/.cache. A server runs with the loader and the libraries of its own release, so beside
# any other and on any Linux for this processor.
set -eu
cd "$(dirname "$0")/.."

# name, package, release; what the release builds on, if it does not stand alone
servers='
redis-6.0  redis  bullseye
valkey-8.0 valkey bookworm-backports bookworm
redis-8.0  redis  trixie
valkey-8.1 valkey trixie
valkey-9   valkey sid
'
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
cache=$PWD/node_modules/.cache/other-servers

say() { printf '%s\n' "$*" >&2; }

names() { printf '%s' "$servers" | awk 'NF { print $1 }'; }

# Fetches a package and all it depends on into FOLDER/packages.
fetch() { # FOLDER PACKAGE RELEASE [BASE]
  folder=$1
  package=$2
  mkdir -p "$folder/packages/partial" "$folder/lists/partial"
  : >"$folder/status"
  shift 2
  for release in "$@"; do
    echo "deb [signed-by=$keyring] $mirror $release main"
  done >"$folder/sources.list"
  # A mirror that stands still is signed all the same: an older state will do.
  cat >"$folder/apt.conf" <<EOF
Acquire::Check-Valid-Until "false";
Dir::Etc::SourceList "$folder/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$folder";
Dir::State::Status "$folder/status";
Dir::State::Lists "$folder/lists";
Dir::Cache "$folder";
Dir::Cache::Archives "$folder/packages";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Debug::NoLocking "true";
EOF
  APT_CONFIG=$folder/apt.conf apt-get update -qq >&2
  APT_CONFIG=$folder/apt.conf apt-get install --download-only -y -qq -o Dpkg::Use-Pty=0 -t "$1" "$package" >&2
}

# A program that starts the server by the loader of its own release.
write_program() { # FOLDER SERVER PROGRAM
  loader=$(find "$1/root" -path '*-linux-gnu/ld-linux-*.so.*' | head -n 1)
  [ -n "$loader" ] || return 1
  triple=$(basename "$(dirname "$loader")")
  printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' \
    "$loader" "$1/root/lib/$triple:$1/root/usr/lib/$triple" "$1/root/usr/bin/$2" >"$3.part"
  chmod 755 "$3.part"
  "$3.part" --version >&2
  mv "$3.part" "$3"
}

if [ "${1:-}" = --names ]; then
  names
  exit 0
fi
line=$(printf '%s' "$servers" | awk -v name="${1:-}" '$1 == name')
if [ -z "$line" ]; then
  say "usage: sh test/other-server.sh NAME, one of: $(names | tr '\n' ' ')"
  exit 2
fi
# shellcheck disable=SC2086 # name, package, releases
set -- $line
folder=$cache/$1
server=$2-server
program=$folder/$server
if [ ! -x "$program" ]; then
  say "Fetching $1 …"
  rm -rf "${folder:?}"
  shift 2
  fetch "$folder" "$server" "$@"
  for package in "$folder"/packages/*.deb; do
    dpkg-deb --extract "$package" "$folder/root"
  done
  rm -rf "$folder/packages" "$folder/lists" "$folder"/*.bin
  write_program "$folder" "$server" "$program"
fi
echo "$program"
