#!/bin/sh
# Install the distribution's packages that the live tests start on loopback. Only what
# is missing is installed, and nothing of it is left running.
set -eu

packages=
need() { # PACKAGE PROGRAM...: one of the programs must be there
    package=$1
    shift
    for program in "$@"; do
        if [ -x "$program" ]; then
            echo "$package is there: $program"
            return
        fi
    done
    packages="$packages $package"
}

need nginx-light /usr/sbin/nginx
need postgresql /usr/lib/postgresql/*/bin/initdb "$(command -v initdb || true)"
need redis-server "$(command -v redis-server || command -v valkey-server || true)"
[ -n "$packages" ] || exit 0

command -v apt-get >/dev/null || {
    echo "This is neither Debian nor Ubuntu. Install by hand:$packages" >&2
    echo "(nginx with its DAV module; of PostgreSQL 14 or later the programs are enough)" >&2
    exit 1
}
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
echo "Installing for the live tests:$packages. The tests start servers of their own."
# Debian would make a cluster and start it.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    $as_root mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
$as_root apt-get update --quiet=2
# shellcheck disable=SC2086 # several words
DEBIAN_FRONTEND=noninteractive $as_root apt-get install --quiet=2 --yes --no-install-recommends $packages
