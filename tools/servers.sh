#!/bin/sh
# Install the distribution's packages that the live tests start on loopback. Only what
# is missing is installed, and nothing of it is started.
set -eu

packages=
need() { # PACKAGES PROGRAM...: one of the programs must be there
    wanted=$1
    shift
    for program in "$@"; do
        if [ -e "$program" ]; then
            echo "$wanted: $program is there."
            return
        fi
    done
    packages="$packages $wanted"
}

need nginx-light /usr/sbin/nginx
need "lighttpd lighttpd-mod-webdav" /usr/lib/lighttpd/mod_webdav.so
need lighttpd-mod-openssl /usr/lib/lighttpd/mod_openssl.so
need apache2-bin /usr/sbin/apache2 /usr/sbin/httpd
need libapache2-mod-fcgid /usr/lib/apache2/modules/mod_fcgid.so
need haproxy /usr/sbin/haproxy "$(command -v haproxy || true)"
need curl "$(command -v curl || true)"
need postgresql /usr/lib/postgresql/*/bin/initdb "$(command -v initdb || true)"
need mariadb-server-core /usr/sbin/mariadbd "$(command -v mariadbd || true)"
# It holds my_print_defaults, which mariadb-install-db calls.
need mariadb-client-core /usr/bin/mariadb "$(command -v mariadb || true)"
need lighttpd-modules-lua /usr/lib/lighttpd/mod_magnet.so
need caddy "$(command -v caddy || true)"
need haproxy /usr/sbin/haproxy
need pgbouncer /usr/sbin/pgbouncer "$(command -v pgbouncer || true)"
need memcached "$(command -v memcached || true)"
need "bind9 bind9-utils" /usr/sbin/named "$(command -v named || true)"
need dnsmasq-base /usr/sbin/dnsmasq "$(command -v dnsmasq || true)"
need chromium "$(command -v chromium || command -v chromium-browser || true)"
need prometheus /usr/bin/promtool "$(command -v promtool || true)"
need logrotate /usr/sbin/logrotate
need s3fs "$(command -v s3fs || true)"
need redis-server "$(command -v redis-server || command -v valkey-server || true)"
if [ "${1:-}" = ceph ]; then
    need "radosgw ceph-mon ceph-osd ceph-common" /usr/bin/radosgw
fi
[ -n "$packages" ] || exit 0

command -v apt-get >/dev/null || {
    echo "This is neither Debian nor Ubuntu. Install by hand:$packages" >&2
    echo "(nginx with its DAV module; of PostgreSQL 14 or later the programs are enough)" >&2
    exit 1
}
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
echo "Installing for the live tests:$packages. The tests start servers of their own."

# Debian starts what it installs, unless this says no (invoke-rc.d(8), policy layer).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
# Nor is a database to be made.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    $as_root mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
$as_root apt-get update --quiet=2
# shellcheck disable=SC2086 # several words
DEBIAN_FRONTEND=noninteractive $as_root apt-get install --quiet=2 --yes --no-install-recommends $packages
