"""`manage.py runfcgi`: the site by FastCGI, with the words that Django's own command had."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from outgrow.errors import OutgrowError
from outgrow.fastcgi.options import HELP, NAMES


class Command(BaseCommand):
    """The command; its options are in `outgrow.fastcgi.options`."""

    help = "Serve this site by FastCGI, behind nginx, Apache or lighttpd."
    requires_system_checks = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """The parser, whose help is the table of all options."""
        kwargs.setdefault("formatter_class", RawDescriptionHelpFormatter)
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.description = HELP
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Words as in `method=threaded`; each is an option, too."""
        parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="see above")
        for name in NAMES:
            parser.add_argument(f"--{name}", dest=f"given_{name}", help="the same")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Serve until a signal ends it."""
        from outgrow.fastcgi.running import runfastcgi

        if options["words"] == ["help"]:
            self.stdout.write(HELP)
            return
        given = {name: options[f"given_{name}"] for name in NAMES}
        try:
            runfastcgi(
                words=options["words"],
                **{name: value for name, value in given.items() if value is not None},
            )
        except OutgrowError as error:
            raise CommandError(str(error)) from error
