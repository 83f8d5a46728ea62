"""The `outgrow` command: what works without Django's settings.

What needs the settings (`outgrow media repair`, `outgrow media status`) is the
management command of the same words: ``manage.py outgrow media repair``.

The commands import what they run when they run: `outgrow --help` is quick.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from outgrow import __version__
from outgrow.errors import OutgrowError

SECONDS = click.FloatRange(min=0, min_open=True)
COUNT = click.IntRange(min=0)


_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Port(click.IntRange):
    """A port that may be left out; the word behind the option is then no port."""

    def fail(
        self,
        message: str,
        param: click.Parameter | None = None,
        context: click.Context | None = None,
    ) -> NoReturn:
        """As the base, with what to do."""
        super().fail(f"{message} Write the topology file before the option.", param, context)


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
@click.option("--live", is_flag=True, help="Show a table of the servers, not their output.")
@click.option(
    "--web",
    type=_Port(0, 65535),
    is_flag=False,
    flag_value=0,
    metavar="[PORT]",
    help="Serve a page with the site's figure, to this machine alone.",
)
@click.pass_context
def up(
    context: click.Context,
    topology: Path,
    checks_only: bool,
    dry_run: bool,
    folder: Path | None,
    live: bool,
    web: int | None,
) -> None:
    """Run the whole site of TOPOLOGY on this machine, until Ctrl-C.

    One of its servers can be killed, frozen, stopped, started or reloaded from a second
    terminal, and `outgrow ps` shows them.
    """
    from outgrow.topology import up as runner

    with _errors_in_one_line():
        context.exit(
            runner.up(
                topology,
                folder,
                checks_only=checks_only,
                dry_run=dry_run,
                table=live,
                web=web,
            )
        )


def _where_it_runs(command: _Command) -> _Command:
    """The options that say which running site is meant."""
    topology = click.option(
        "--topology",
        type=click.Path(path_type=Path),
        default="topology.toml",
        show_default=True,
        help="The file of a site that runs.",
    )
    folder = click.option(
        "--folder",
        type=click.Path(path_type=Path),
        help="Where it runs, if `outgrow up` was given a folder.",
    )
    return topology(folder(command))


def _acting(word: str, text: str) -> None:
    """Add a command that does something to one server of a running site."""

    @main.command(word, help=text, short_help=text.partition("\n")[0])
    @click.argument("name")
    @_where_it_runs
    def act(name: str, topology: Path, folder: Path | None) -> None:
        from outgrow.topology import control, runfolder

        with _errors_in_one_line():
            click.echo(control.act(folder or runfolder.beside(topology), word, name))


_acting(
    "kill",
    "Kill server NAME of the running site.\n\n"
    "SIGKILL to its process and all below it. It stays down until `outgrow start NAME`.",
)
_acting(
    "freeze",
    "Freeze server NAME of the running site.\n\n"
    "SIGSTOP: it takes connections and answers nobody, until `outgrow thaw NAME`.",
)
_acting("thaw", "Let a frozen server NAME go on.")
_acting(
    "stop",
    "Stop server NAME of the running site.\n\n"
    "It may finish its requests. It stays down until `outgrow start NAME`.",
)
_acting("start", "Start server NAME again, and wait until it is ready.")
_acting(
    "reload",
    "Reload server NAME, and wait until it is ready.\n\n"
    "gunicorn, nginx and PostgreSQL get SIGHUP; others, uvicorn and granian among them, are "
    "restarted.",
)


@main.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be done; do nothing.")
@click.option("--accept-loss", is_flag=True, help="Also where rows may be lost by it.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@_where_it_runs
def promote(
    name: str,
    dry_run: bool,
    accept_loss: bool,
    as_json: bool,
    topology: Path,
    folder: Path | None,
) -> None:
    """Make the replica NAME of the running site its primary. PostgreSQL's alone.

    The old primary is stopped first; then it follows the new one, as all other replicas do.
    Refused when another replica has more, or rows may be lost. What was broken off goes on when
    the same is asked again.
    """
    import sys

    from outgrow.topology import control, runfolder
    from outgrow.topology import up as runner

    with _errors_in_one_line():
        found = control.promote(
            folder or runfolder.beside(topology), name, dry_run=dry_run, accept_loss=accept_loss
        )
    runner.print_promotion(found, sys.stdout, as_json=as_json)


@main.command("deploy-local")
@click.option("--no-migrate", is_flag=True, help="Leave the tables as they are.")
@click.option("--dry-run", is_flag=True, help="Print the steps; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@_where_it_runs
def deploy_local(
    no_migrate: bool, dry_run: bool, as_json: bool, topology: Path, folder: Path | None
) -> None:
    """Bring the site's new code to its running servers, one after the other.

    First the code is loaded in a process of its own, and the database migrated. Then application
    servers, workers and the repair watch are told, each when the one before is ready. It stops
    at the first that fails.
    """
    import sys

    from outgrow.topology import deploying, runfolder

    with _errors_in_one_line():
        deploying.deploy(
            folder or runfolder.beside(topology),
            sys.stdout,
            migrate=not no_migrate,
            dry_run=dry_run,
            as_json=as_json,
        )


@main.command()
@_where_it_runs
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def ps(topology: Path, folder: Path | None, as_json: bool) -> None:
    """List the servers of the running site: state, address, process, memory."""
    import sys

    from outgrow.topology import control, runfolder
    from outgrow.topology import up as runner

    with _errors_in_one_line():
        found = control.look(folder or runfolder.beside(topology))
    runner.print_statuses(found, sys.stdout, as_json=as_json)


@main.command()
@click.argument("names", nargs=-1, metavar="[all|NAME]...")
@click.option("--topology", type=click.Path(path_type=Path), default="topology.toml")
@click.option("--list", "listing", is_flag=True, help="Name the drills; start nothing.")
@click.option("--seconds", type=SECONDS, default=5.0, show_default=True, help="Of each fault.")
@click.option("--rate", type=SECONDS, default=40.0, show_default=True, help="Requests a second.")
@click.option("--json", "machine", is_flag=True, help="For machines.")
@click.option("--folder", type=click.Path(path_type=Path), help="For its files, which are kept.")
@click.pass_context
def drill(
    context: click.Context,
    names: tuple[str, ...],
    topology: Path,
    listing: bool,
    seconds: float,
    rate: float,
    machine: bool,
    folder: Path | None,
) -> None:
    """Run the site on this machine under load, break one server at a time, and count.

    Fails when something that the site acknowledged is lost, missing or was done twice.
    """
    from outgrow.drills import running

    with _errors_in_one_line():
        context.exit(
            running.drill(
                topology,
                names,
                folder,
                seconds=seconds,
                rate=rate,
                machine=machine,
                listing=listing,
            )
        )


@main.command()
@click.argument("topology", type=click.Path(path_type=Path), default="topology.toml")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="The folder.")
@click.option("--host", "hosts", multiple=True, help="Only this server; may be repeated.")
@click.option("--target", type=click.Choice(["shared-hosting"]), help=".htaccess and a script.")
@click.option("--dry-run", is_flag=True, help="Print the files; write nothing.")
@click.option("--diff", is_flag=True, help="Print what would change; 1 if anything would.")
@click.option("--python", default="/srv/venv/bin/python", show_default=True, help="Theirs.")
@click.option("--user", default="www-data", show_default=True, help="Whom they run as.")
@click.option("--copies", default="/srv/copies", show_default=True, help="A media server's files.")
@click.option("--visitors", type=click.IntRange(1, 65535), help="A port of nginx for visitors.")
@click.pass_context
def render(
    context: click.Context,
    topology: Path,
    to: Path,
    hosts: tuple[str, ...],
    dry_run: bool,
    diff: bool,
    python: str,
    user: str,
    copies: str,
    visitors: int | None,
    target: str | None,
) -> None:
    """Write what the servers of TOPOLOGY need: README.md, units of systemd, and nginx.conf.

    Each server has a folder below --to: application and repair for those with the site,
    and the media server for those with files. Prometheus has one, too, with its alert rules.
    With --target shared-hosting it is what a site needs that shares its Apache with others.
    """
    import sys

    from outgrow.topology import rendering
    from outgrow.topology.render.systemd import Places

    with _errors_in_one_line():
        places = Places(python=python, user=user, copies=copies, state=f"{copies}-tmp")
        files = rendering.wanted(
            topology, places, hosts=hosts, visitors=visitors, target=target or ""
        )
        if diff:
            context.exit(int(rendering.compare(files, to, sys.stdout)))
        rendering.render(files, to, sys.stdout, dry_run=dry_run)


@main.command("plan")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def plan_changes(context: click.Context, before: Path, after: Path, as_json: bool) -> None:
    """Print the steps from the site of BEFORE to that of AFTER, in an order that keeps it up.

    Nothing is carried out. 1 if anything changes.
    """
    import json

    from outgrow.topology import change
    from outgrow.topology.changes import changes
    from outgrow.topology.load import load

    with _errors_in_one_line():
        steps = changes(load(before), load(after), str(after))
        text = f"{json.dumps(change.facts(steps), indent=2)}\n" if as_json else change.text(steps)
        click.echo(text, nl=False)
        context.exit(int(bool(steps)))


@main.command()
@click.argument("kind", metavar="[single|database|media|redundant|big]", default="single")
@click.option("--name", help="The site's; by default this folder's.")
@click.option("--domain", default="www.example.org", show_default=True)
@click.option("--to", type=click.Path(path_type=Path), default="topology.toml", show_default=True)
def new(kind: str, name: str | None, domain: str, to: Path) -> None:
    """Write a topology file to begin with.

    One server for all; the database on a server of its own; the media, too; two or three of
    each, so that any one can die; or many.
    """
    from outgrow.topology.load import create

    with _errors_in_one_line():
        here = re.sub(r"[^a-z0-9.-]+", "-", Path.cwd().name.lower()).strip("-.")
        create(to, kind, name or here or "site", domain)
    click.echo(f"{to}: draw it with `outgrow draw {to}`, run it with `outgrow up {to}`")


@main.command()
@click.argument("topology", type=click.Path(path_type=Path), default="topology.toml")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def settings(topology: Path, as_json: bool) -> None:
    """Print the settings that Django gets from TOPOLOGY, without the secrets."""
    import json

    from outgrow.topology.load import load
    from outgrow.topology.render import python
    from outgrow.topology.settings import django_settings

    with _errors_in_one_line():
        found = django_settings(load(topology))
        text = f"{json.dumps(found, indent=2)}\n" if as_json else python.render(found)
        click.echo(text, nl=False)


@main.command()
@click.argument("topology", type=click.Path(path_type=Path), default="topology.toml")
@click.option("--format", "kind", type=click.Choice(["text", "svg"]), help="[default: text]")
@click.option("--to", type=click.Path(path_type=Path), help="A file; .svg is a picture.")
def draw(topology: Path, kind: str | None, to: Path | None) -> None:
    """Draw the servers of TOPOLOGY, and what goes from one to another."""
    from outgrow.topology.figure import figure
    from outgrow.topology.load import load
    from outgrow.topology.render import svg, text

    with _errors_in_one_line():
        found = figure(load(topology))
        is_picture = kind == "svg" or (kind is None and to is not None and to.suffix == ".svg")
        drawn = svg.render(found) if is_picture else text.render(found)
        if to is None:
            click.echo(drawn, nl=False)
        else:
            to.write_text(drawn, encoding="utf-8")


@main.command()
@click.argument("topology", type=click.Path(path_type=Path), default="topology.toml")
@click.option("--worker", type=click.IntRange(1), help="MB of a worker.  [default: as measured]")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def capacity(context: click.Context, topology: Path, worker: int | None, as_json: bool) -> None:
    """Print what each server of TOPOLOGY needs at the most, and what stops when one dies.

    Memory, connections, open files, disk and inodes, as sums. 1 if one is more than its limit.
    """
    import sys

    from outgrow.topology import weighing

    with _errors_in_one_line():
        fits = weighing.weigh(topology, sys.stdout, worker_memory=worker, as_json=as_json)
        context.exit(int(not fits))


@main.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--to", "targets", multiple=True, help="s3://BUCKET/PREFIX, or a folder.")
@click.option("--config", type=click.Path(path_type=Path), help="[default: nearest outgrow.toml]")
@click.option("--prefix", help="What stands before all names, as in img/.")
@click.option("--release/--plain", "stamps", default=None, help="Hashes in names, or names kept.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Write the build's manifest.")
@click.option("--build", is_flag=True, help="Write the manifest alone; send nothing.")
@click.option("--dry-run", is_flag=True, help="Do all the work but send and delete nothing.")
@click.option("--delete", is_flag=True, help="With --plain: delete what is not there any more.")
@click.option("--verify", metavar="URL", default="", help="Then fetch all as a visitor would.")
@click.option("--check", metavar="RELEASE", default="", help="Is all of a release there?")
@click.option("--rollback", metavar="RELEASE", default="", help="Serve a former release.")
@click.option("--releases", is_flag=True, help="List the releases that are there.")
@click.option("--prune", is_flag=True, help="Condemn old files; delete those of yesterday.")
@click.option("--keep", type=COUNT, default=5, show_default=True, help="Releases, at least.")
@click.option("--older", default="14d", show_default=True, help="Since it was last served.")
@click.option("--max", "most", type=COUNT, help="Do nothing if it would be more files.")
@click.option("--json", is_flag=True, help="For machines.")
@click.pass_context
def publish(context: click.Context, /, paths: tuple[str, ...], **given: Any) -> None:
    """Publish static files: PATHs, or what outgrow.toml says; `-` reads names from the input.

    What has a hash in its name is sent before the pages that refer to it, and nothing that is
    served is replaced by something else. To repeat it sends only what has changed.
    """
    from outgrow.publish import command

    with _errors_in_one_line():
        configuration = command.configured(given, Path.cwd())
        request = command.requested(given)
        run = command.Command(
            configuration,
            request,
            lambda: command.files_of(configuration, paths, Path.cwd(), command.lines_of_input()),
        )
        context.exit(run.run())


@main.command()
@click.argument("url", metavar="s3://BUCKET/KEY")
@click.option("--expires", default="1h", show_default=True, help="As in 10m, 12h or 7d.")
@click.option("--endpoint", default="", help="[default: outgrow.toml, AWS_ENDPOINT_URL, Amazon]")
@click.option("--region", default="")
@click.option("--profile", default="", help="Of ~/.aws/credentials.")
@click.option("--download", metavar="NAME", default="", help="To be saved under this name.")
def sign(url: str, expires: str, endpoint: str, region: str, profile: str, download: str) -> None:
    """Print a link to a file in a private bucket, which ends working after a time.

    Keys come from the target of outgrow.toml that holds the file, from the environment
    (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or from a profile. Nothing is sent.
    """
    from outgrow.publish import signing

    with _errors_in_one_line():
        options = {"endpoint": endpoint, "region": region, "profile": profile}
        click.echo(signing.link(url, expires, options, Path.cwd(), download))


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Show our own errors, which say what to do, without a traceback."""
    try:
        yield
    except OutgrowError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
