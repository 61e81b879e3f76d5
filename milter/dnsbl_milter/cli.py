"""The command line: each command calls into the house and shows what comes back.

Floor 5: the home of click and rich; imported by nothing. Exit status: 0 fine, 1 a problem was found, 2 wrong usage
or an invalid configuration.
"""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from dnsbl_milter import __version__, log, supervisor
from dnsbl_milter.configuration import DEFAULT_PATH, Configuration, load, shown_settings
from dnsbl_milter.explain import explain as explain_client
from dnsbl_milter.listen import ListenError
from dnsbl_milter.settings import Invalid, schema
from dnsbl_policy.lists import parse_client

_config = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The configuration; by default {DEFAULT_PATH}, or the packaged policy where that does not exist.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dnsbl-milter")
def main() -> None:
    """Weigh what several DNS lists say about a client, and answer Sendmail with a graded action."""


@main.command()
@_config
def run(path: Path | None) -> None:
    """Run the daemon in the foreground, logging to stderr."""
    configuration = _load(path)
    log.start(configuration.settings.log.format, configuration.settings.log.level)
    try:
        sys.exit(supervisor.run(configuration))
    except ListenError as fault:
        _fail(f"{configuration.source}: {fault}")


@main.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@_config
def check(path: Path | None) -> None:
    """Validate the configuration and print every fault."""
    configuration = _load(path)
    for warning in configuration.warnings:
        click.echo(f"warning: {configuration.source}: {warning}", err=True)
    click.echo(f"{configuration.source}: fine, {len(configuration.policy.lists)} lists")


@config.command()
@_config
@_json
def show(path: Path | None, as_json: bool) -> None:
    """Show the effective policy: defaults and catalog filled in, keys left out."""
    configuration = _load(path)
    shown = shown_settings(configuration)
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    click.echo(f"# {configuration.source}")
    for line in _toml(shown):
        click.echo(line)


@config.command(name="schema")
def show_schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    click.echo(json.dumps(schema(), indent=2))


@main.command()
@click.argument("address")
@click.option("--host", metavar="NAME", help="The client's host name, taken for verified.")
@click.option("--helo", metavar="NAME", help="The name given at HELO; shown, and of no weight.")
@click.option("--sender", metavar="ADDRESS", help="The envelope sender; shown, and of no weight.")
@click.option("--recipient", metavar="ADDRESS", help="The recipient, who may be exempt.")
@_config
@_json
def explain(
    address: str,
    host: str | None,
    helo: str | None,
    sender: str | None,
    recipient: str | None,
    path: Path | None,
    as_json: bool,
) -> None:
    """Ask every list about ADDRESS now, and show what that client would meet, and why."""
    client = parse_client(address)
    if client is None:
        raise click.BadParameter(f"{address!r} is no IPv4 or IPv6 address", param_hint="ADDRESS")
    document = explain_client(_load(path), client, host=host, recipient=recipient)
    document |= {"helo": helo, "sender": sender, "recipient": recipient}
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _show_explanation(document)


def _show_explanation(document: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    table = _table("list", "state", "codes", "meaning", "weight", "ttl", "ms", "why")
    for row in document["lists"]:
        table.add_row(
            row["name"],
            row["state"] + (" (observed)" if row["observe"] else ""),
            " ".join(row["codes"]),
            " ".join(row["labels"]),
            f"{row['weight']:+g}" if row["weight"] else "",
            "" if row["ttl"] is None else str(row["ttl"]),
            "" if row["milliseconds"] is None else str(row["milliseconds"]),
            row["why"] or "",
            style={"listed": "red", "clear": "green", "unknown": "yellow"}.get(row["state"], "dim"),
        )
    console.print(f"client   {document['client']}", markup=False)
    console.print(table)
    console.print(f"score    {document['score']:g}, between {document['low']:g} and {document['high']:g}")
    console.print(f"exempt   {document['exempt'] or 'no'}")
    softened = "" if document["action"] == document["asked"] else f", softened from {document['asked']}"
    observed = "" if document["enforced"] else " (observe mode: nothing is done)"
    console.print(f"action   {document['action']}{softened}{observed}", style="bold")
    if document["decisive"]:
        console.print(f"decisive {', '.join(document['decisive'])}", markup=False)
    if document["reply"]:
        console.print(f"reply    {document['reply']}", markup=False)
    for name, value in document["headers"].items():
        console.print(f"header   {name}: {value}", markup=False)
    if document["quarantine"]:
        console.print(f"queue    {document['quarantine']}", markup=False)


def _table(*columns: str) -> Table:
    """Return a table with lines on a terminal, and plain columns where another program reads it."""
    table = Table(box=None if not sys.stdout.isatty() else Table().box, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=not sys.stdout.isatty())
    return table


def _toml(shown: dict[str, Any]) -> list[str]:
    """Write settings in the form of the file; values of TOML's kinds are written alike in JSON."""
    lines: list[str] = []
    for section, keys in shown.items():
        for table in keys if isinstance(keys, list) else [keys]:
            lines.append(f"\n[[{section}]]" if isinstance(keys, list) else f"\n[{section}]")
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items() if value is not None]
    return lines


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)


def _load(path: Path | None) -> Configuration:
    try:
        return load(path)
    except Invalid as invalid:
        _fail(str(invalid))


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)
