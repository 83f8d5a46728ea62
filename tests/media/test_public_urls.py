"""Links that lead to a media server: never to one that may lack the file."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile

from outgrow.media import AsyncStorage, HybridStorage
from outgrow.media.repair import Repair
from outgrow.testing import MediaServer


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield {"media1": one, "media2": two, "media3": three}


PUBLIC = {f"media{n}": f"https://m{n}.example.org/files/" for n in (1, 2, 3)}


@pytest.fixture
def make(servers, tmp_path):
    def make(kind=HybridStorage, **options):
        given = {
            "servers": {name: server.url for name, server in servers.items()},
            "public_urls": PUBLIC,
            "location": tmp_path / "master",
            "base_url": "/media/",
            "downtime": 60,
        }
        return kind(**(given | options))

    # A server is owed everything at first, even on a new site: there may be files.
    assert Repair(make().replication).once(settle=False).complete
    return make


def save(storage, name: str = "f.txt") -> str:
    return storage.save(name, ContentFile(b"content"))


def host(url: str) -> str:
    return urlsplit(url).hostname or ""


def where(url: str) -> str:
    """The name of the server that a URL leads to; empty for the site itself."""
    return next((name for name, public in PUBLIC.items() if url.startswith(public)), "")


def test_links_are_spread_and_stay_the_same(make, servers):
    storage = make()
    names = [save(storage) for _ in range(60)]
    places = {name: where(storage.url(name)) for name in names}
    assert set(places.values()) == set(servers)
    assert places == {name: where(make().url(name)) for name in names}
    assert all(name in servers[place].files for name, place in places.items())


def test_a_name_is_quoted(make):
    storage = make(names="keep")
    name = save(storage, "für dich/a b.txt")
    assert storage.url(name).endswith(".example.org/files/f%C3%BCr%20dich/a%20b.txt")


def test_no_link_leads_to_a_server_that_missed_the_file(make, servers):
    storage = make()
    save(storage)
    servers["media2"].stop()
    names = [save(storage) for _ in range(20)]
    # Another process does not know that the server is down, and sees the records.
    other = make()
    for name in names:
        for one in (storage, other):
            assert where(one.url(name)) in {"media1", "media3"}
    servers["media2"].start()
    assert Repair(make().replication).once(settle=False).complete
    assert "media2" in {where(other.url(name)) for name in names}


def test_a_new_server_gets_links_when_it_has_everything(make, servers):
    names = [save(make()) for _ in range(20)]
    with MediaServer() as fourth:
        urls = {name: server.url for name, server in servers.items()} | {"media4": fourth.url}
        public = PUBLIC | {"media4": "https://m4.example.org/"}
        storage = make(servers=urls, public_urls=public)
        assert "m4.example.org" not in {host(storage.url(name)) for name in names}
        assert Repair(storage.replication).once(settle=False).complete
        assert "m4.example.org" in {host(storage.url(name)) for name in names}


def test_without_such_a_server_the_site_itself_is_asked(make, servers):
    storage = make(need=0)
    for server in servers.values():
        server.stop()
    name = save(storage)
    assert storage.url(name) == f"/media/{name}"
    assert make(public_urls={}).url(name) == f"/media/{name}"


def test_a_server_that_is_down_gets_no_links(make, servers):
    storage = make()
    names = [save(storage) for _ in range(20)]
    servers["media1"].stop()
    save(storage)  # which finds that out
    assert {where(storage.url(name)) for name in names} == {"media2", "media3"}


class Elsewhere(AsyncStorage):
    """Another process tells the servers; this one only makes the record."""

    def _hand_on(self, pending):
        pass


def test_what_is_not_sent_yet_is_on_the_site_itself(make, servers, tmp_path):
    first = make()
    save(first)
    storage = make(Elsewhere)
    name = save(storage)
    assert storage.url(name) == f"/media/{name}"
    assert make().url(name) == f"/media/{name}"


def test_after_its_thread_has_sent_it_a_server_has_it(make, servers):
    save(make())
    storage = make(AsyncStorage)
    name = save(storage)
    url = storage.url(name)  # asked once: the thread may send it at any moment
    assert url == f"/media/{name}" or name in servers[where(url)].files
    storage.background.drain(20)
    assert name in servers[where(storage.url(name))].files


def test_such_links_are_signed_too(make):
    storage = make(querystring_auth=True, secret="only-the-servers-know")
    url = storage.url(save(storage))
    assert where(url)
    assert "expires=" in url


@pytest.mark.parametrize(
    ("public", "message"),
    [
        ({"media9": "https://m9.example.org/"}, "which is not in 'servers'"),
        ({"media1": "m1.example.org"}, "which is no http"),
        ({"media1": "https://m1.example.org"}, "must end with a slash"),
        ({"media1": "https://m1.example.org/?a=b/"}, "must end with a slash"),
        ({"media1": 7}, "which is no http"),
        ("https://m1.example.org/", "is no mapping"),
    ],
)
def test_wrong_addresses(make, public, message):
    with pytest.raises(ImproperlyConfigured, match=message):
        make(public_urls=public)
