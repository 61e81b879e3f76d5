"""What the commands share: their options, how they fail, and how they print a table.

Floor 5.
"""

import json
import sys
from pathlib import Path
from typing import NoReturn

import click
from rich import box
from rich.console import Console
from rich.table import Table

from dnsbl_milter.configuration import DEFAULT_PATH, Configuration, load
from dnsbl_milter.settings import Invalid

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The configuration; by default {DEFAULT_PATH}, or the packaged policy where that does not exist.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def configured(path: Path | None) -> Configuration:
    """Load the configuration, or end with every fault on stderr and status 2."""
    try:
        return load(path)
    except Invalid as invalid:
        fail(str(invalid))


def fail(message: str, status: int = 2) -> NoReturn:
    """End with a message on stderr, and a status."""
    click.echo(message, err=True)
    sys.exit(status)


def print_json(document: object) -> None:
    """Print a document as JSON."""
    click.echo(json.dumps(document, indent=2))


def console() -> Console:
    """Return a console for stdout; where that is no terminal, lines are as long as they are."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000)


def table(*columns: str) -> Table:
    """Return a table with lines on a terminal, and plain columns where another program reads it."""
    terminal = sys.stdout.isatty()
    made = Table(box=box.ROUNDED if terminal else None, pad_edge=terminal, header_style="bold")
    for column in columns:
        made.add_column(column, no_wrap=not terminal)
    return made
