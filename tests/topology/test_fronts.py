"""What balancers do, as values, and the text that each program is given for it.

What the programs make of it is asked in tests/fronts.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from outgrow.errors import ConfigurationError
from outgrow.topology.applications import ENGINES, Application, application, reload, words
from outgrow.topology.balancer import Balancer
from outgrow.topology.front import APP_IDLE, IDLE, Front, Member, Route, Upstream, front
from outgrow.topology.model import Host, Media, Port, Service, Site
from outgrow.topology.render import apache_front, caddy, haproxy, nginx_front

STATE = PurePosixPath("/run/outgrow")
TLS = Balancer(
    certificate=PurePosixPath("/etc/ssl/a.pem"), certificate_key=PurePosixPath("/etc/ssl/a.key")
)
APP = Upstream("app", (Member("app1", Port("10.0.0.11", 8000)),))
MEDIA = Upstream("media", tuple(Member(f"media{n}", Port(f"10.0.0.2{n}", 8080)) for n in (1, 2, 3)))
PLAIN = Front("front", Port("10.0.0.1", 80), (Route("/", APP),))
WHOLE = replace(PLAIN, routes=(Route("/media/", MEDIA, files=True), Route("/", APP)))
FASTCGI = replace(PLAIN, routes=(Route("/", replace(APP, protocol="fastcgi")),))
ASGI = replace(PLAIN, routes=(Route("/", replace(APP, wsgi=False)),))
SECURE = replace(PLAIN, options=TLS, listen=Port("10.0.0.1", 443))


def weighing(*weights: int) -> Front:
    members = (Member(f"app{n}", Port(f"10.0.0.1{n}", 8000), w) for n, w in enumerate(weights))
    return replace(PLAIN, routes=(Route("/", replace(APP, members=tuple(members))),))


root = PurePosixPath("/srv")


def site(media_url: str = "/media/") -> Site:
    hosts = tuple(
        Host(name, address, (Service(name, role, Port(address, number)),), weight=weight)
        for name, role, address, number, weight in (
            ("front", "balancer", "10.0.0.1", 80, 1),
            ("app1", "app", "10.0.0.11", 8000, 3),
            ("media1", "media", "10.0.0.21", 8080, 1),
        )
    )
    return Site("a", "a.s", "a.w:a", (".a.org",), root, root, media_url, Media(), hosts)


def test_what_a_balancer_does() -> None:
    found = front(site(), site().service("front"))
    assert [route.prefix for route in found.routes] == ["/media/", "/"]
    assert [route.files for route in found.routes] == [True, False]
    assert found.application.upstream.members == (Member("app1", Port("10.0.0.11", 8000), 3),)
    assert [one.name for one in found.upstreams] == ["media", "app"]
    assert (found.domain, found.max_bytes) == ("a.org", 100_000_000)
    assert IDLE < APP_IDLE


def test_files_with_an_address_of_their_own_are_no_balancers() -> None:
    elsewhere = site("https://media.a.org/")
    assert [r.prefix for r in front(elsewhere, elsewhere.service("front")).routes] == ["/"]


def test_where_http_is_sent() -> None:
    assert (SECURE.plain, SECURE.https_port) == (Port("10.0.0.1", 80), "")
    assert replace(SECURE, listen=Port("10.0.0.1", 8443)).https_port == ":8443"


def test_last_resorts_that_are_all_there_is() -> None:
    assert [m.weight for m in weighing(0, 0).application.upstream.shares] == [1, 1]
    assert [m.weight for m in weighing(0, 5).application.upstream.shares] == [0, 5]


def nginx(given: Front, user: str = "") -> str:
    [file] = nginx_front.render(given, STATE, user=user)
    return file.content


def haproxy_text(given: Front, pem: PurePosixPath | None = None) -> str:
    [file] = haproxy.render(given, pem)
    return file.content


def apache(given: Front, user: str = "") -> str:
    [file] = apache_front.render(given, STATE, user=user)
    return file.content


def caddyfile(given: Front) -> str:
    [file] = caddy.render(given, STATE, user="www www")
    return file.content


def test_nginx() -> None:
    assert "user www www;" in nginx(PLAIN, "www www")
    assert "server 10.0.0.11:8000;" in nginx(PLAIN)
    shares = "server 10.0.0.10:8000 backup", "server 10.0.0.11:8000 weight=1000"
    assert all(share in nginx(weighing(0, 1000)) for share in shares)
    assert "location = /media {" in nginx(WHOLE)
    assert "fastcgi_pass app;" in nginx(FASTCGI)
    assert "listen 10.0.0.1:443 ssl http2;" in nginx(SECURE)
    assert "return 301 https://$host$request_uri;" in nginx(SECURE)


def test_haproxy() -> None:
    assert "bind 10.0.0.1:80\n" in haproxy_text(PLAIN)
    assert "status 411" in haproxy_text(PLAIN)
    assert "status 411" not in haproxy_text(ASGI)
    assert "use_backend media if { path_beg /media/ }" in haproxy_text(WHOLE)
    assert "use-fcgi-app fastcgi-app" in haproxy_text(FASTCGI)
    heavy = haproxy_text(weighing(0, 1, 1000))
    assert all(share in heavy for share in ("8000 backup", "8000 weight 1\n", "8000 weight 256"))
    pem = PurePosixPath("/etc/a.pem")
    assert "bind 10.0.0.1:443 ssl crt /etc/a.pem" in haproxy_text(SECURE, pem)
    with pytest.raises(ConfigurationError, match="HAProxy can't be given this path"):
        haproxy_text(SECURE, PurePosixPath("/etc/a b.pem"))


def test_apache() -> None:
    assert "User www\nGroup data\n" in apache(PLAIN, "www data")
    assert "R=411" in apache(PLAIN)
    assert "R=411" not in apache(ASGI)
    assert '<Location "/media/">' in apache(WHOLE)
    assert 'ProxyPass "/" "balancer://app/" nocanon' in apache(WHOLE)
    assert 'BalancerMember "fcgi://10.0.0.11:8000"' in apache(FASTCGI)
    heavy = apache(weighing(0, 1, 1000))
    assert all(share in heavy for share in ("status=+H", "loadfactor=1 ", "loadfactor=100 "))
    assert 'SSLCertificateFile "/etc/ssl/a.pem"' in apache(SECURE)
    for name in ('"', "\\", "$", "%"):
        with pytest.raises(ConfigurationError, match="Apache can't be given this path"):
            apache_front.quoted(PurePosixPath(f"/a{name}"))


def test_caddy() -> None:
    assert "http://:80 {" in caddyfile(PLAIN)
    assert " 411\n" in caddyfile(PLAIN)
    assert " 411\n" not in caddyfile(ASGI)
    assert caddyfile(WHOLE).count("handle_response") == 3
    alone = (Route("/media/", replace(MEDIA, members=MEDIA.members[:1]), files=True), *PLAIN.routes)
    assert "handle_response" not in caddyfile(replace(PLAIN, routes=alone))
    assert "transport fastcgi" in caddyfile(FASTCGI)
    assert 'tls "/etc/ssl/a.pem" "/etc/ssl/a.key"' in caddyfile(SECURE)
    assert "redir https://{host}{uri} 301" in caddyfile(SECURE)
    with pytest.raises(ConfigurationError, match="knows no last resort"):
        caddyfile(weighing(0, 1))
    for name in ('"', "`", "\\", "{", "}"):
        with pytest.raises(ConfigurationError, match="Caddy can't be given this path"):
            caddy.word(PurePosixPath(f"/a{name}"))


def test_shares_of_caddy_are_how_often_a_server_stands_there() -> None:
    line = "reverse_proxy 10.0.0.10:8000 10.0.0.11:8000 10.0.0.11:8000 {"
    assert line in caddyfile(weighing(1, 2))
    assert caddyfile(weighing(1, 1000)).count("10.0.0.11:8000") == 20


def test_the_words_of_each_application_server() -> None:
    given = Application(
        "photos.wsgi:application", Port("10.0.0.11", 8000), fronts=("10.0.0.1", "fd00::1")
    )
    for engine in ENGINES:
        found = words(engine, given)
        assert found[0] == "-m"
        place = {"--bind", "10.0.0.11:8000"}, {"10.0.0.11", "8000"}, {"host=10.0.0.11", "port=8000"}
        assert any(one <= set(found) for one in place)
    assert "--forwarded-allow-ips=10.0.0.1,fd00::1" in words("uvicorn", given)
    # Nobody is believed where there is no balancer.
    assert "--no-proxy-headers" in words("uvicorn", replace(given, fronts=()))
    assert words("granian", given)[-1] == "photos.wsgi:application"
    asgi = words("granian", replace(given, asgi=True))
    assert asgi[2:6] == ("--interface", "asginl", "--blocking-threads", "1")
    with pytest.raises(KeyError):
        words("apache", given)


def test_the_words_of_gunicorn() -> None:
    port, folder = Port("fd00::1", 8000), PurePosixPath("/srv/shop")
    few = words("gunicorn", Application("shop.wsgi:application", port, folder))
    assert few == (
        *("-m", "gunicorn", "--no-control-socket"),
        *("--bind", "[fd00::1]:8000", "--chdir", "/srv/shop"),
        *("--worker-class", "gthread", "--threads", "8"),
        *("--timeout", "60", "--graceful-timeout", "5"),
        *("--keep-alive", "75"),
        "--forwarded-allow-ips=",
        "shop.wsgi:application",
    )
    given = Application("shop.wsgi:application", port, folder, workers=3, grace=30, log=True)
    more = words("gunicorn", given)
    added = [word for word in more if word not in few]
    log = "%(m)s %(U)s %(s)s %(M)s ms"
    assert added == ["--workers", "3", "30", "--access-logfile", "-", "--access-logformat", log]


def test_lines_for_requests_are_written_where_they_are_wanted() -> None:
    given = Application("shop.wsgi:application", Port("10.0.0.11", 8000))
    logging = replace(given, log=True)
    assert "--access-log" in words("granian", logging)
    assert "--access-log" not in words("granian", given)
    assert "--no-access-log" not in words("uvicorn", logging)
    assert "--no-access-log" in words("uvicorn", given)


def test_a_signal_for_those_whom_it_does_not_end() -> None:
    one = Application("shop.wsgi:application", Port("10.0.0.11", 8000))
    assert reload("gunicorn", one) == signal.SIGHUP
    assert reload("uvicorn", one) is None
    assert reload("uvicorn", replace(one, workers=2)) == signal.SIGHUP
    assert reload("granian", replace(one, workers=2)) is None
    assert reload("fastcgi", one) is None


def test_what_an_application_server_of_a_site_runs() -> None:
    found = application(site(), site().service("app1"))
    assert found == Application("a.w:a", Port("10.0.0.11", 8000), root, ("10.0.0.1",), 3)
