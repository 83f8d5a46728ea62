"""One server's mounts -> units of systemd, lines of an fstab, and what it exports to whom.

The options are those that lose no data:

* ``hard`` (nfs(5)): a request is sent again until the server answers. With ``soft`` it fails
  after a time, which "can cause silent data corruption".
* ``lookupcache=positive`` (nfs(5)): that a file is not there is asked anew each time, so what
  one server has just saved is not missing on another.
* ``nfsvers=4`` (nfs(5)): locks and all else go through one port, and the highest 4.x is taken
  that both sides have.
* ``retry=10000`` (nfs(5), systemd.mount(5)): a server that starts after its clients is waited for.
* ``nodev``, ``noexec``, ``nosuid`` (mount(8)): nothing there is a device or a program.
* ``sync`` (exports(5)): the server answers when the data are on its disk. ``async`` answers
  before, and "can cause data to be lost or corrupted" when it is restarted.
* ``root_squash`` (exports(5)): root of a client is nobody there. ``no_subtree_check``: a file that
  is renamed while it is open stays open.

There is never a `*`: each client is named by its address.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology import mounts, rules
from outgrow.topology.model import Host, Site
from outgrow.topology.mounts import Mount
from outgrow.topology.render import File

#: In the folder of a server: lines for /etc/fstab, and a file for /etc/exports.d.
FSTAB: Final = "fstab"
EXPORTS: Final = "outgrow.exports"

#: What a client mounts with; in an fstab it says that the network is needed first.
OPTIONS: Final = "nfsvers=4,proto=tcp,hard,lookupcache=positive,nodev,noexec,nosuid,retry=10000"
_FSTAB_OPTIONS: Final = f"_netdev,x-systemd.mount-timeout=infinity,{OPTIONS}"

#: What a server exports with.
EXPORT_OPTIONS: Final = "rw,sync,no_subtree_check,root_squash,sec=sys"

_MINE: Final = "# Written by outgrow. Changes here are lost.\n"

_UNIT: Final = """\
{mine}[Unit]
Description=Outgrow: the shared folder {name}

[Mount]
What={what}
Where={where}
Type={kind}
Options={options}
{more}
[Install]
WantedBy={target}
"""

#: Of the characters of a name those that a unit's name has as they are (systemd.unit(5)).
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + ":_.")

#: The longest name of a unit that systemd takes (UNIT_NAME_MAX in its unit-name.h, less the NUL).
_LONGEST: Final = 255


def render(site: Site, host: Host) -> Iterator[File]:
    """The files of one server. Raises `ConfigurationError` for what a file can't hold."""
    mine = [mount for mount in mounts.of(site, host) if not _is_there(mount, host)]
    for mount in mine:
        yield File(unit_name(mount.folder), _unit(site, host, mount))
    if mine:
        lines = "".join(f"{_fstab_line(site, host, mount)}\n" for mount in mine)
        yield File(
            FSTAB, f"{_MINE}# Where mounts stand in /etc/fstab: instead of the units.\n{lines}"
        )
    if exported := "".join(f"{line}\n" for line in exports(site, host.name)):
        yield File(EXPORTS, _MINE + exported)


def exports(site: Site, server: str) -> Iterator[str]:
    """What one server exports, a line for each folder. It may be none of the file."""
    found: dict[PurePath, dict[str, None]] = {}
    for mount in site.mounts:
        if mount.server == server:
            some = found.setdefault(mount.export, {})
            some |= dict.fromkeys(host.address for host in mounts.clients(site, mount))
    for folder, addresses in found.items():
        if addresses:
            who = " ".join(f"{address}({EXPORT_OPTIONS})" for address in addresses)
            yield f"{_octal(str(folder), _IN_EXPORTS)} {who}"


def unit_name(folder: PurePath) -> str:
    """The name that the unit of a mount must have (systemd.unit(5), "String escaping")."""
    parts = [part for part in folder.parts if part != "/"]
    name = "-".join(_escaped(part, is_first=not number) for number, part in enumerate(parts))
    if len(name) + len(".mount") > _LONGEST:
        raise ConfigurationError(str(folder), "is too long for a unit of systemd.", "Shorten it.")
    return f"{name}.mount"


def _escaped(part: str, *, is_first: bool) -> str:
    shown = "".join(
        character if character in _PLAIN else "".join(f"\\x{one:02x}" for one in _bytes(character))
        for character in part
    )
    # A dot at the very beginning would make it a hidden file.
    return "\\x2e" + shown[1:] if is_first and part.startswith(".") else shown


def _unit(site: Site, host: Host, mount: Mount) -> str:
    local = mount.server == host.name
    return _UNIT.format(
        mine=_MINE,
        name=mount.name,
        what=_line(str(mount.export) if local else source(site, mount)),
        where=_line(str(mount.folder)),
        kind="none" if local else "nfs",
        options="bind" if local else OPTIONS,
        # As systemd has it for a mount in the background: as long as the server takes.
        more="" if local else "TimeoutSec=infinity\n",
        target="local-fs.target" if local else "remote-fs.target",
    )


def _fstab_line(site: Site, host: Host, mount: Mount) -> str:
    local = mount.server == host.name
    what = str(mount.export) if local else source(site, mount)
    words = (
        _octal(what, _IN_FSTAB),
        _octal(str(mount.folder), _IN_FSTAB),
        "none" if local else "nfs",
        "bind" if local else _FSTAB_OPTIONS,
    )
    return f"{' '.join(words)} 0 0"


def source(site: Site, mount: Mount) -> str:
    """What is mounted over the network."""
    address = mounts.address(site, mount)
    # nfs(5), "THE MOUNT DEVICE": an IPv6 address stands in brackets.
    shown = f"[{address}]" if rules.is_address(address) and ":" in address else address
    return f"{shown}:{mount.export}"


def _is_there(mount: Mount, host: Host) -> bool:
    """Whether the server of a mount has it under that path already."""
    return mount.server == host.name and mount.export == mount.folder


# --- quoting


#: What stands for itself in an fstab is all but these (fstab(5)).
_IN_FSTAB: Final = frozenset(" \\")
#: In exports a word may be quoted, too, and a comment begins with # (exports(5)).
_IN_EXPORTS: Final = frozenset(" \\\"#()=-@*?[]'")


def _octal(text: str, special: frozenset[str]) -> str:
    """A path as a field: `special` characters, and all blanks, as octal numbers."""
    _line(text)
    return "".join(
        "".join(f"\\{one:03o}" for one in _bytes(character))
        if character in special or character.isspace()
        else character
        for character in text
    )


def _line(text: str) -> str:
    """A value that is a line's whole rest, in a unit."""
    if any(character < " " or character == "\x7f" for character in text) or text != text.strip():
        raise ConfigurationError(text, "a file of mounts can't hold this.", "Rename it.")
    return text.replace("%", "%%")


def _bytes(character: str) -> bytes:
    return character.encode("utf-8", "surrogateescape")
