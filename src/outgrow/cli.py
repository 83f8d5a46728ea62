"""The `outgrow` command: what works without Django's settings.

What needs the settings (`outgrow media repair`, `outgrow media status`) is the
management command of the same words: ``manage.py outgrow media repair``.

The commands import what they run when they run: `outgrow --help` is quick.
"""

from __future__ import annotations

from pathlib import Path

import click

from outgrow import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="outgrow")
def main() -> None:
    """What a Django site uses when it outgrows one machine."""


if __name__ == "__main__":
    main()
