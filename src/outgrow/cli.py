"""The `outgrow` command: what works without Django's settings.

What needs the settings (`outgrow media repair`, `outgrow media status`) is the
management command of the same words: ``manage.py outgrow media repair``.

The commands import what they run when they run: `outgrow --help` is quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from outgrow import __version__
from outgrow.errors import OutgrowError

SECONDS = click.FloatRange(min=0, min_open=True)
COUNT = click.IntRange(min=0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="outgrow")
def main() -> None:
    """What a Django site uses when it outgrows one machine."""


@main.command("media-server")
@click.option("--root", type=click.Path(path_type=Path), required=True, help="The folder.")
@click.option("--bind", default="127.0.0.1:8080", show_default=True, help="host:port; 0: any.")
@click.option("--write-bind", help="host:port where alone files are written and listed.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Or OUTGROW_MEDIA_TOKEN.")
@click.option("--host", "hosts", multiple=True, help="A name to be written to by, without a token.")
@click.option(
    "--names",
    type=click.Choice(["unique", "keep"]),
    default="unique",
    show_default=True,
    help="keep: a deleted name may be used again, as by a storage with names='keep'.",
)
@click.option("--reused", multiple=True, help="A folder where --names keep holds.")
@click.option("--fsync/--no-fsync", default=True, show_default=True, help="Sync each upload.")
@click.option(
    "--secret-file", type=click.Path(path_type=Path), help="Private files: or OUTGROW_MEDIA_SECRET."
)
@click.option("--prefix", default="", help="Of the paths of signed URLs, as in /media.")
@click.option("--active", is_flag=True, help="Show HTML, SVG, scripts; not only to be saved.")
@click.option("--max-body", default="0", show_default=True, help="As in 10M; 0: no limit.")
@click.option("--body-timeout", type=SECONDS, default=30.0, show_default=True, help="Seconds.")
@click.option("--min-rate", default="1K", show_default=True, help="Bytes a second; 0: any.")
@click.option("--max-head", default="16K", show_default=True, help="Bytes of a request's head.")
@click.option("--head-timeout", type=SECONDS, default=10.0, show_default=True, help="Seconds.")
@click.option("--connections", type=COUNT, default=1000, show_default=True, help="0: no limit.")
@click.option("--scrub", default="0", help="Compare files with checksums: as in 5M, a second.")
@click.option("--scrub-every", default="7d", show_default=True, help="Days between two passes.")
@click.option("--fd", type=int, help="An inherited, listening socket, instead of --bind.")
@click.option("--write-fd", type=int, help="The same, instead of --write-bind.")
def media_server(
    root: Path,
    bind: str,
    write_bind: str | None,
    token_file: Path | None,
    hosts: tuple[str, ...],
    names: str,
    reused: tuple[str, ...],
    fsync: bool,
    active: bool,
    secret_file: Path | None,
    prefix: str,
    max_body: str,
    body_timeout: float,
    min_rate: str,
    max_head: str,
    head_timeout: float,
    connections: int,
    scrub: str,
    scrub_every: str,
    fd: int | None,
    write_fd: int | None,
) -> None:
    """Serve and store the files below a folder, over HTTP.

    Reading is public. Writing needs the token, unless the server, or its --write-bind,
    can be reached from this machine only.
    """
    from outgrow.media import server
    from outgrow.media.limits import Limits
    from outgrow.media.protocol import Rules

    with _errors_in_one_line():
        server.serve(
            root,
            bind,
            rules=Rules(
                token=server.read_token(token_file, os.environ),
                hosts=frozenset(host.lower() for host in hosts),
                active=active,
                max_body=server.parse_size(max_body),
                secret=server.read_token(secret_file, os.environ, "OUTGROW_MEDIA_SECRET") or "",
                prefix=prefix.rstrip("/"),
            ),
            limits=Limits(
                max_head=server.parse_size(max_head),
                head_timeout=head_timeout,
                body_timeout=body_timeout,
                min_rate=server.parse_size(min_rate),
                max_connections=connections,
            ),
            fsync=fsync,
            reused=server.parse_reused(names, reused),
            scrub=server.parse_scrub(scrub, scrub_every),
            fd=fd,
            write_bind=write_bind,
            write_fd=write_fd,
        )


@main.command()
@click.argument("topology", type=click.Path(path_type=Path), default="topology.toml")
@click.option("--exit", "checks_only", is_flag=True, help="Check everything once, then stop.")
@click.option("--dry-run", is_flag=True, help="Print what would run; start and write nothing.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="For its files.  [default: .outgrow-run]"
)
@click.pass_context
def up(
    context: click.Context,
    topology: Path,
    checks_only: bool,
    dry_run: bool,
    folder: Path | None,
) -> None:
    """Run the whole site of TOPOLOGY on this machine, until Ctrl-C."""
    from outgrow.topology import up as runner

    with _errors_in_one_line():
        context.exit(runner.up(topology, folder, checks_only=checks_only, dry_run=dry_run))


@main.command()
@click.argument("topology", type=click.Path(path_type=Path), default="topology.toml")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="The folder.")
@click.option("--host", "hosts", multiple=True, help="Only this server; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Print the files; write nothing.")
@click.option("--python", default="/srv/venv/bin/python", show_default=True, help="Theirs.")
@click.option("--user", default="www-data", show_default=True, help="Whom they run as.")
@click.option("--copies", default="/srv/copies", show_default=True, help="A media server's files.")
@click.option("--visitors", type=click.IntRange(1, 65535), help="A port of nginx for visitors.")
def render(
    topology: Path,
    to: Path,
    hosts: tuple[str, ...],
    dry_run: bool,
    python: str,
    user: str,
    copies: str,
    visitors: int | None,
) -> None:
    """Write what the servers of TOPOLOGY need: units of systemd, and nginx.conf.

    Each server has a folder below --to: the repair for those with the site, and the
    media server for those with files.
    """
    import sys

    from outgrow.topology import rendering
    from outgrow.topology.render.systemd import Places

    with _errors_in_one_line():
        places = Places(python=python, user=user, copies=copies, state=f"{copies}-tmp")
        rendering.render(
            topology, places, to, sys.stdout, hosts=hosts, visitors=visitors, dry_run=dry_run
        )


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Show our own errors, which say what to do, without a traceback."""
    try:
        yield
    except OutgrowError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
