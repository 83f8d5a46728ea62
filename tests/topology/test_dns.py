"""The role `dns`: the file, the zones, plans and pages, and what the real name servers answer."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgrow.cli import main
from outgrow.errors import ConfigurationError
from outgrow.topology import ports, rendering, zones
from outgrow.topology.changes import changes
from outgrow.topology.dns import Dns
from outgrow.topology.doors import doors
from outgrow.topology.figure import VISITORS, Arrow, figure
from outgrow.topology.model import Host, Port, Service, Site, parse, runnable
from outgrow.topology.render import bind, dnsmasq, toml
from outgrow.topology.render.systemd import DNS_UNIT, Places
from outgrow.topology.weak_points import weak_points
from tests.live.processes import kill_family, launched, missing, server_folder, wait_until
from tests.topology.asking import Answer, Record, ask
from tests.topology.sites import problems, sites
from tests.topology.test_systemd import verify

SBIN = "/usr/sbin:/usr/bin:/sbin:/usr/local/sbin:/usr/local/bin"
ENGINES = ("bind", "dnsmasq")
SERVERS = {
    "lb1": "balancer@203.0.113.1",
    "lb2": "balancer@203.0.113.2",
    "app1": "app media@10.0.0.11",
    "ns1": "dns@192.0.2.1",
    "ns2": "dns@192.0.2.2",
}
DOMAINS = [".example.org", "shop.example.com", "www.shop.example.com", "127.0.0.1"]
OTHERS = {"serial": 7, "secondaries": {"ns.example.net": "198.51.100.53"}}


def content(servers: dict[str, str] = SERVERS, **tables: Any) -> dict[str, Any]:
    first = {
        "name": "shop",
        "settings": "shop.settings",
        "wsgi": "shop.wsgi:application",
        "domains": DOMAINS,
        "media_root": "media",
        **tables.pop("site", {}),
    }
    found: dict[str, Any] = {}
    for name, words in servers.items():
        roles, _, address = words.partition("@")
        found[name] = {"roles": roles.split(), "address": address}
    return {"site": first, "servers": found, **tables}


def site(servers: dict[str, str] = SERVERS, **tables: Any) -> Site:
    return parse(content(servers, **tables), PurePath("/srv"))


# --- the file


def test_the_table() -> None:
    assert site().dns == Dns(60, "", 0, ())
    assert [(s.engine, s.port) for s in site().services("dns")] == [
        ("bind", Port("192.0.2.1", 53)),
        ("bind", Port("192.0.2.2", 53)),
    ]
    found = content(dns={"engine": "dnsmasq", "ttl": 5, "contact": "ops@example.net", **OTHERS})
    found["servers"]["ns2"]["engine"] = "bind"
    found["servers"]["lb1"]["public"] = ["198.51.100.1", "2001:DB8:0::1"]
    whole = parse(found, PurePath("/srv"))
    assert whole.dns == Dns(5, "ops@example.net", 7, (("ns.example.net", "198.51.100.53"),))
    assert [service.engine for service in whole.services("dns")] == ["dnsmasq", "bind"]
    assert zones.addresses(whole.hosts[0]) == ("198.51.100.1", "2001:db8::1")
    [file] = toml.render(whole)
    assert parse(tomllib.loads(file.content), PurePath("/x")) == whole
    [file] = toml.render(site())
    assert parse(tomllib.loads(file.content), PurePath("/x")) == site()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"dns": {"engine": "nsd"}}, 'dns.engine: "nsd" is not an engine'),
        ({"dns": {"ttl": 0}}, "dns.ttl: must be from 1 to 604800, not 0."),
        ({"dns": {"contact": "a.b@example.org"}}, "is not a mail address without a dot before"),
        ({"dns": {"contact": 'a"\n@example.org'}}, "is not a mail address"),
        ({"dns": {"contact": "nobody"}}, '"nobody" is not a mail address'),
        ({"dns": {"serial": 2**32}}, "dns.serial: must be from 1 to 4294967295"),
        ({"dns": {"secondaries": {"ns.a.b": "1.2.3.4"}}}, "dns.serial: is missing: by it the"),
        ({"dns": {**OTHERS, "secondaries": {"a b": "1.2.3.4"}}}, '"a b" is not a host name'),
        ({"dns": {**OTHERS, "secondaries": {"ns.a.b": "x"}}}, '"x" is not an IP address.'),
        ({"dns": {"tll": 1}}, 'dns.tll: is not a known key; did you mean "ttl"?'),
        ({"site": {"domains": ["127.0.0.1", "localhost"]}}, "has names to answer for, and there"),
        ({"site": {"domains": ["ns1.example.org", "example.org"]}}, "is a domain of the site."),
        ({"site": {"domains": [f"{'a.' * 120}example"]}}, "is too long for a zone."),
        ({"site": {"domains": [f"{'a.' * 125}org"]}}, "would be the name server, and is too long"),
    ],
)
def test_what_is_wrong(tables: dict[str, Any], message: str) -> None:
    found = problems(content(**tables))
    assert any(message in one for one in found), found


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"name.server": "dns@192.0.2.9"}, '"name.server" can be no part of a host name.'),
        ({"ns3": "dns@ns3.example.org"}, "a name server listens at an IP address."),
        ({"lb3": "balancer@lb3.example"}, "a domain leads to addresses. Write the addresses"),
    ],
)
def test_what_is_wrong_with_a_server(server: dict[str, str], message: str) -> None:
    [one] = problems(content({**SERVERS, **server}))
    assert message in one


def test_public_addresses() -> None:
    found = content({**SERVERS, "lb3": "balancer@lb3.example"})
    found["servers"]["lb3"]["public"] = ["nowhere"]
    assert any('lb3.public[0]: "nowhere" is not an IP address.' in one for one in problems(found))
    found["servers"]["lb3"]["public"] = ["0.0.0.0"]
    assert any("is no address that others could reach" in one for one in problems(found))
    found["servers"]["lb3"]["public"] = ["203.0.113.3"]
    assert "203.0.113.3" in zones.zones(parse(found, PurePath("/")))[0].names[0].addresses


# --- the zones


def names(found: Site) -> dict[str, list[str]]:
    return {
        zone.name: [f"*{one.name}" if one.wild else one.name for one in zone.names]
        for zone in zones.zones(found)
    }


def test_which_zones_there_are() -> None:
    assert names(site()) == {
        "example.org": ["*example.org", "ns1.example.org", "ns2.example.org"],
        "shop.example.com": ["shop.example.com", "www.shop.example.com"],
    }
    nested = ["Example.org", ".shop.example.org", "a.shop.example.org", "shop.example.org"]
    assert names(site(site={"domains": nested})) == {
        "example.org": ["example.org", "*shop.example.org", "ns1.example.org", "ns2.example.org"]
    }
    assert zones.zones(site({"web": "app media@10.0.0.1"})) == ()


def test_without_balancers_names_lead_to_the_application_servers() -> None:
    found = zones.zones(site({"web": "app media@10.0.0.1", "ns1": "dns@192.0.2.1"}))
    assert {name.addresses for name in found[1].names} == {("10.0.0.1",)}


def test_serials() -> None:
    """Law 3: one content has one serial, and it is the file's where it says one."""
    serials = [zone.serial for zone in zones.zones(site())]
    assert serials == [zone.serial for zone in zones.zones(site())]
    longer = [zone.serial for zone in zones.zones(site(dns={"ttl": 61}))]
    assert all(old != new for old, new in zip(serials, longer, strict=True))
    assert {zone.serial for zone in zones.zones(site(dns=OTHERS))} == {7}
    assert zones.grows(1, 2)
    assert zones.grows(2**32 - 1, 1)
    assert not zones.grows(2, 2)
    assert not zones.grows(2, 1)
    assert not zones.grows(0, 2**31)


def test_a_path_that_a_configuration_cannot_hold() -> None:
    with pytest.raises(ConfigurationError, match="BIND can't be given this path"):
        list(bind.render(site(), site().service("ns1"), PurePosixPath('/a"b'), PurePosixPath("/")))


def test_ipv6() -> None:
    found = site({**SERVERS, "ns1": "dns@2001:db8::53"})
    [file, *_] = bind.render(found, found.service("ns1"), PurePosixPath("/z"), PurePosixPath("/s"))
    assert "listen-on { none; };\n    listen-on-v6 port 53 { 2001:db8::53; };" in file.content


# --- the real programs


def program(name: str) -> str:
    found = shutil.which(name, path=SBIN)
    if found is None:
        package = "dnsmasq-base" if name == "dnsmasq" else "bind9 bind9-utils"
        missing(f"{name} is not installed", f"apt-get install {package}")
    return str(found)


def written(found: Site, service: Service, folder: Path) -> Path:
    """The files of a name server, all below `folder`; its configuration."""
    if service.engine == "bind":
        files = list(bind.render(found, service, folder, folder))
    else:
        files = list(dnsmasq.render(found, service))
    for file in files:
        (folder / file.name).write_text(file.content)
    return folder / files[0].name


def run(*words: object) -> str:
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def checked(found: Site, service: Service, folder: Path) -> None:
    """The programs that look at a configuration have nothing against this one."""
    configuration = written(found, service, folder)
    if service.engine == "dnsmasq":
        assert "syntax check OK" in run(program("dnsmasq"), "--test", "-C", configuration)
        return
    # -z: with every zone, as named loads them.
    output = run(program("named-checkconf"), "-z", configuration)
    assert "loaded serial" in output
    assert "ignoring" not in output
    for zone in zones.zones(found)[:1]:
        file = folder / bind.file_of(zone)
        assert "OK" in run(program("named-checkzone"), "-i", "local", zone.name, file)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_programs_take_what_is_rendered(engine: str, tmp_path: Path) -> None:
    for number, tables in enumerate(({}, {"dns": {"contact": "a-b+c@x.example", **OTHERS}})):
        (folder := tmp_path / str(number)).mkdir()
        whole = {**tables, "dns": {"engine": engine, **tables.get("dns", {})}}
        found = site(**whole)
        checked(found, found.service("ns1"), folder)


@st.composite
def named_sites(draw: st.DrawFn) -> Site:
    """Any site with name servers that `parse` takes."""
    found = draw(sites())
    dotted = st.sampled_from(["", "."])
    engine = draw(st.sampled_from(ENGINES))
    service = Service("the-ns", "dns", Port("192.0.2.1", 53), engine)
    public = ("203.0.113.1", "2001:db8::1")
    found = replace(
        found,
        domains=tuple(draw(dotted) + domain for domain in found.domains),
        hosts=(
            *(replace(host, public=public) for host in found.hosts),
            Host("the-ns", "192.0.2.1", (service,)),
        ),
        dns=Dns(draw(st.integers(1, 604_800))),
    )
    [file] = toml.render(found)
    return parse(tomllib.loads(file.content), PurePath("/srv"))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(named_sites())
def test_the_programs_take_any_site(tmp_path: Path, found: Site) -> None:
    checked(found, found.service("the-ns"), tmp_path)


def words(engine: str, configuration: Path) -> list[str]:
    if engine == "bind":
        return [program("named"), "-g", "-n", "1", "-c", str(configuration)]
    return [program("dnsmasq"), "-k", "--log-facility=-", "-C", str(configuration)]


@contextmanager
def answering(found: Site, engine: str) -> Iterator[int]:
    """The name server ns1 of a site on loopback; its port."""
    with server_folder("outgrow-dns-") as folder:
        [port] = ports.choose(1, shuffle=random.SystemRandom())
        service = Service("ns1", "dns", Port("127.0.0.1", port), engine)
        here = tuple(
            replace(host, services=(service,)) if host.name == "ns1" else host
            for host in found.hosts
        )
        configuration = written(replace(found, hosts=here), service, folder)
        process = launched(words(engine, configuration), folder, {})
        try:
            wait_until(lambda: answers(port), f"{engine} to answer")
            yield port
        finally:
            kill_family(process)


def answers(port: int) -> bool:
    try:
        return ask(port, "example.org").status == 0
    except OSError:
        time.sleep(0.1)
        return False


def several(port: int, name: str, kind: str = "A") -> list[Answer]:
    return [ask(port, name, kind) for _ in range(12)]


def copied(port: int) -> tuple[Record, ...]:
    """What who wants to copy a zone is given. BIND refuses, dnsmasq hangs up."""
    try:
        return ask(port, "example.org", "AXFR", tcp=True).records
    except struct.error:
        return ()


def with_public(**tables: Any) -> Site:
    found = content(**tables)
    found["servers"]["lb3"] = {"roles": ["balancer"], "address": "203.0.113.3"}
    for number in (1, 2):
        addresses = [f"203.0.113.{number}", f"2001:db8::{number}"]
        found["servers"][f"lb{number}"]["public"] = addresses
    return parse(found, PurePath("/srv"))


@pytest.mark.parametrize("engine", ENGINES)
def test_visitors_are_sent_to_each_balancer_in_turn(engine: str) -> None:
    balancers = {"203.0.113.1", "203.0.113.2", "203.0.113.3"}
    with answering(with_public(dns={"ttl": 45}), engine) as port:
        for name in ("example.org", "shop.example.com", "www.shop.example.com"):
            found = several(port, name)
            assert all(set(one.values("A")) == balancers for one in found)
            # Round-robin: each of them is the first one now and then.
            assert {one.values("A")[0] for one in found} == balancers
            assert {record.ttl for one in found for record in one.records} == {45}
            assert all(one.authoritative and not one.recursive for one in found)
        found = several(port, "example.org", "AAAA")
        assert {one.values("AAAA")[0] for one in found} == {"2001:db8::1", "2001:db8::2"}
        assert set(ask(port, "example.org", tcp=True).values("A")) == balancers


@pytest.mark.parametrize("engine", ENGINES)
def test_names_below_a_domain_and_others(engine: str) -> None:
    with answering(with_public(), engine) as port:
        for name in ("www.example.org", "a.b.example.org"):
            assert len(ask(port, name).values("A")) == 3
        # The domain without a dot has nothing below it but what the file names.
        assert ask(port, "a.shop.example.com").status == 3
        assert ask(port, "example.net").status == 5
        for zone in ("example.org", "shop.example.com"):
            servers = {"ns1.example.org", "ns2.example.org"}
            assert set(ask(port, zone, "NS").values("NS")) == servers
            assert len(ask(port, zone, "SOA").values("SOA")) == 1
        assert ask(port, "ns1.example.org").values("A") == ["192.0.2.1"]
        # Nobody copies a zone who is not named.
        assert copied(port) == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_secondary_copies_the_zone_and_sees_the_serial(engine: str) -> None:
    others = {"serial": 2026010100, "secondaries": {"NS.example.net": "127.0.0.1"}}
    with answering(with_public(dns=others), engine) as port:
        assert ask(port, "example.org", "SOA").values("SOA") == ["2026010100"]
        assert "ns.example.net" in ask(port, "example.org", "NS").values("NS")
        assert "SOA" in [record.type for record in copied(port)]


# --- what is written for the servers


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    found = content()
    found["servers"]["ns2"]["engine"] = "dnsmasq"
    whole = parse(found, PurePath("/srv"))
    return {file.name: file.content for file in rendering.plan(whole, Places())}


def test_the_files_of_each(rendered: dict[str, str]) -> None:
    assert [name for name in rendered if name.startswith("ns")] == [
        "ns1/outgrow-dns.service",
        "ns1/named.conf",
        "ns1/example.org.zone",
        "ns1/shop.example.com.zone",
        "ns1/README.md",
        "ns2/outgrow-dns.service",
        "ns2/dnsmasq.conf",
        "ns2/README.md",
    ]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    places = Places(named=program("named"), dnsmasq=program("dnsmasq"), dns_user="root")
    for engine in ENGINES:
        files = rendering.plan(site(dns={"engine": engine}), places, hosts=["ns1"])
        [unit] = [file.content for file in files if file.name.endswith(DNS_UNIT)]
        assert verify(tmp_path, unit) == ""
        assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in unit


def test_the_pages(rendered: dict[str, str]) -> None:
    first, second = rendered["ns1/README.md"], rendered["ns2/README.md"]
    for line in (
        "# ns1: name server",
        "sudo apt-get install bind9 bind9-utils",
        "sudo install -d /etc/outgrow/ /etc/bind/outgrow/",
        "sudo install -m 644 example.org.zone /etc/bind/outgrow/",
        "sudo install -m 644 outgrow-dns.service /etc/systemd/system/",
        "sudo systemctl disable --now named",
        "dig @192.0.2.1 -p 53 +norecurse example.org A",
        "dig @192.0.2.1 -p 53 +norecurse +tcp example.org NS",
        "| shop.example.com | ns2.example.org | 192.0.2.2 |",
        "| 53/udp and tcp | name server | visitors, or what stands before the site for them |",
    ):
        assert f"\n{line}\n" in f"\n{first}", line
    assert "sudo apt-get install dnsmasq-base" in second
    assert "sudo install -m 644 dnsmasq.conf /etc/outgrow/" in second
    assert "disable --now named" not in second


def test_addresses_from_inside_are_named() -> None:
    servers = {**SERVERS, "lb1": "balancer@10.0.0.1"}
    whole = site(servers, dns=OTHERS)
    pages = {file.name: file.content for file in rendering.plan(whole, Places(), hosts=["ns1"])}
    page = pages["ns1/README.md"]
    assert "Only from inside is reached: " in page
    assert "10.0.0.1 of lb1" in page
    assert "| example.org | ns.example.net | 198.51.100.53 |" in page
    inside = {"lb1": "balancer@8.8.8.8", "app1": "app media@10.0.0.11", "ns1": "dns@8.8.4.4"}
    [*_, last] = rendering.plan(site(inside), Places(), hosts=["ns1"])
    assert "Only from inside" not in last.content


def test_the_figure_the_doors_and_what_is_weak() -> None:
    found = figure(site())
    assert [group.title for group in found.rows[0]] == ["balancers", "name servers"]
    assert Arrow(VISITORS, "dns", "names") in found.arrows
    [door] = doors(site(), site().hosts[3])
    assert door.public
    assert not any("name server" in one for one in weak_points(site()))
    one = {name: words for name, words in SERVERS.items() if name != "ns2"}
    assert any(
        sentence.startswith("ns1 is the only name server: when it dies, no new visitor finds")
        for sentence in weak_points(site(one))
    )


def test_no_name_server_runs_on_a_laptop(tmp_path: Path) -> None:
    both = {"web": "balancer app media dns@127.0.0.1"}
    assert [s.role for s in runnable(site(both)).services()] == ["balancer", "app", "media"]
    path = tmp_path / "topology.toml"
    [file] = toml.render(site(), path.name)
    path.write_text(file.content)
    done = CliRunner().invoke(main, ["up", str(path), "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said = "Not run here, and rendered for servers alone: the name servers ns1, ns2.\n"
    assert done.output.endswith(f"# {said}")
    assert "# ns1\n" not in done.output


# --- from one site to another


def steps(before: Site, after: Site) -> list[str]:
    return [f"{one.server}: {one.verb}" for one in changes(before, after)]


def without(name: str) -> dict[str, str]:
    return {key: words for key, words in SERVERS.items() if key != name}


def test_a_balancer_comes() -> None:
    """The domain leads to it when it serves, and not before."""
    found = steps(site(without("lb2")), site())
    assert found[-2:] == ["ns1: reload", "ns2: reload"]
    assert "lb2: start" in found
    assert "lb2: send visitors to" not in found


def test_a_balancer_goes() -> None:
    """First no name leads to it, then the time to live goes by, then it stops."""
    found = changes(site(), site(without("lb2")))
    [first, *_] = [one for one in found if one.server.startswith("ns")]
    verbs = [f"{one.server}: {one.verb}" for one in found]
    assert verbs.index("ns1: reload") < verbs.index("ns2: reload") < verbs.index("lb2: drain")
    assert verbs.index("lb2: drain") < verbs.index("lb2: remove")
    assert first.commands[-1] == "systemctl reload outgrow-dns.service"
    [drain] = [one for one in found if one.verb == "drain"]
    assert "has it for 60 seconds more" in drain.why


def test_a_balancer_is_moved() -> None:
    found = changes(site(), site({**SERVERS, "lb2": "balancer@203.0.113.9"}))
    assert "ns1: reload" in [f"{one.server}: {one.verb}" for one in found]
    assert any(one.why.startswith("Wait 60 seconds: by then") for one in found)
    assert not any(one.verb == "send visitors to" for one in found)


def test_a_name_server_comes_and_goes() -> None:
    come = steps(site(without("ns2")), site())
    assert come == ["ns2: set up", "ns2: start", "ns1: reload", "ns2: send visitors to"]
    go = steps(site(), site(without("ns2")))
    assert go == ["ns1: reload", "ns2: drain", "ns2: remove"]


def test_dnsmasq_is_started_again() -> None:
    before, after = (site(dns={"engine": "dnsmasq", "ttl": ttl}) for ttl in (60, 5))
    found = changes(before, after)
    assert [one.commands[-1] for one in found] == ["systemctl restart outgrow-dns.service"] * 2


def test_what_no_name_server_has_changes_none() -> None:
    media = {**SERVERS, "media2": "media@10.0.0.12"}
    assert not any(one.startswith("ns") for one in steps(site(), site(media)))
    assert steps(site(), site()) == []


def test_secondaries_need_a_serial_that_grows() -> None:
    before, same = site(dns=OTHERS), site(without("lb2"), dns=OTHERS)
    [first, *_] = changes(before, same)
    assert first.what == "the new file: a serial of [dns] that is greater than 7"
    greater = site(without("lb2"), dns={**OTHERS, "serial": 8})
    assert not any("serial" in one.what for one in changes(before, greater))
