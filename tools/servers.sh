#!/bin/sh
# Install the distribution's packages that the live tests start on loopback.
set -eu
if [ -x /usr/sbin/nginx ]; then
    echo "nginx is there."
    exit 0
fi
command -v apt-get >/dev/null || {
    echo "This is neither Debian nor Ubuntu. Install nginx with its DAV module by hand." >&2
    exit 1
}
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
echo "Installing nginx for the live tests. It is not started as a service by them."
$as_root apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive $as_root apt-get install --quiet=2 --yes --no-install-recommends nginx-light
