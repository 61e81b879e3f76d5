"""`memory stats`, `memory show` and `memory forget`: look into what is remembered, and clear a client from it.

Floor 5.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from dnsbl_milter.cli.common import config_option, configured, console, json_option, print_json, table
from dnsbl_milter.effective import shown_settings
from dnsbl_milter.memory import open_engine
from dnsbl_milter.memory_engine import Engine, Remembered, Unavailable
from dnsbl_milter.settings import MemorySection
from dnsbl_policy.greylist import network
from dnsbl_policy.lists import parse_client

PATIENCE_SECONDS = 5.0
"""For each answer of a server: nobody's mail waits for a command."""


@click.group()
def memory() -> None:
    """Look into the memory of deferrals, and clear a client from it."""


@memory.command()
@config_option
@json_option
def stats(path: Path | None, as_json: bool) -> None:
    """Show how much is remembered."""
    configuration = configured(path)
    engine = _engine(configuration.settings.memory)
    try:
        holdings = engine.holdings()
    except Unavailable as fault:
        _unavailable(fault)
    document = {
        "engine": engine.name,
        "url": shown_settings(configuration)["memory"]["url"],
        "waiting": holdings.waiting,
        "passed": holdings.passed,
        "bytes": holdings.size,
    }
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        click.echo(f"{name:8} {'not told' if value is None else value}")


@memory.command()
@click.argument("address")
@config_option
@json_option
def show(address: str, path: Path | None, as_json: bool) -> None:
    """Show what is remembered of the network that ADDRESS is in."""
    place = _network(address)
    section = configured(path).settings.memory
    engine = _engine(section)
    try:
        found = engine.show(place)
    except Unavailable as fault:
        _unavailable(fault)
    rows = [_row(one, section) for one in found]
    if as_json:
        print_json({"network": place, "entries": rows})
        return
    out = console()
    out.print(f"network  {place}")
    if not rows:
        out.print("nothing is remembered of it")
        return
    shown = table("state", "since", "passes from", "until", "sender", "recipient")
    for row in rows:
        shown.add_row(row["state"], row["since"], row["passes_from"] or "", row["until"], *_parties(row))
    out.print(shown)


@memory.command()
@click.argument("address")
@config_option
@json_option
def forget(address: str, path: Path | None, as_json: bool) -> None:
    """Forget the network that ADDRESS is in, so that its next attempt is the first."""
    place = _network(address)
    engine = _engine(configured(path).settings.memory)
    try:
        count = engine.forget(place)
    except Unavailable as fault:
        _unavailable(fault)
    if as_json:
        print_json({"network": place, "forgotten": count})
    else:
        click.echo(f"{place}: forgotten: {count}")


def _network(address: str) -> str:
    client = parse_client(address)
    if client is None:
        raise click.BadParameter(f"{address!r} is no IPv4 or IPv6 address", param_hint="ADDRESS")
    return network(client)


def _engine(section: MemorySection) -> Engine:
    engine = open_engine(section, create=False, patience=PATIENCE_SECONDS)
    if engine is None:
        click.echo('memory is turned off (memory.url = "")', err=True)
        sys.exit(1)
    return engine


def _unavailable(fault: Unavailable) -> NoReturn:
    click.echo(f"memory is unavailable: {fault}", err=True)
    sys.exit(1)


def _row(one: Remembered, section: MemorySection) -> dict[str, Any]:
    """Return an entry with the moments that matter to whoever waits for the mail."""
    return {
        "state": "passed" if one.passed else "waiting",
        "sender": one.sender,
        "recipient": one.recipient,
        "since": _moment(one.since),
        "passes_from": None if one.passed else _moment(one.since + section.delay),
        "until": _moment(one.since + (section.remember if one.passed else section.window)),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parties(row: dict[str, Any]) -> tuple[str, str]:
    return f"<{row['sender']}>", f"<{row['recipient']}>"
