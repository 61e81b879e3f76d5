"""`lists` and `catalog`: the configured lists as they answer now, and the public ones that are known.

Floor 5.
"""

import sys
from pathlib import Path
from typing import Any

import click

from dnsbl_milter.cli.common import config_option, configured, console, json_option, print_json, table
from dnsbl_milter.configuration import catalog as packaged_catalog
from dnsbl_milter.survey import known_lists, survey

_STYLES = {"ok": "green", "suspect": "yellow", "suspended": "red"}


@click.command()
@config_option
@json_option
def lists(path: Path | None, as_json: bool) -> None:
    """Probe every list now; exit status 1 if any is not ok."""
    document = survey(configured(path))
    if as_json:
        print_json(document)
    else:
        _show(document)
    sys.exit(int(document["resolver"] is not None or any(row["state"] != "ok" for row in document["lists"])))


@click.command()
@config_option
@json_option
def catalog(path: Path | None, as_json: bool) -> None:
    """Show the public lists that are known, living and dead; with --config also which of them are in use."""
    document = known_lists(packaged_catalog(), configured(path) if path else None)
    if as_json:
        print_json(document)
        return
    out = console()
    living = table("name", "used", "zone", "scope", "kind", "terms", "state", "ipv6", "codes", "source")
    for row in document["lists"]:
        codes = [f"{code['match']} {code['label']}".strip() + f" {code['weight']:+g}" for code in row["codes"]]
        living.add_row(
            row["name"], row["used"] or "", row["zone"], row["scope"], row["kind"], row["terms"], row["state"],
            "yes" if row["ipv6"] else "", ", ".join(codes), row["source"],
        )  # fmt: skip
    out.print(living)
    dead = table("dead zone", "when", "dangerous", "what happened", "source")
    for row in document["dead"]:
        dead.add_row(row["zone"], row["when"], "yes" if row["dangerous"] else "", row["what"], row["source"])
    out.print(dead)


def _show(document: dict[str, Any]) -> None:
    out = console()
    rows = table("list", "state", "listed", "clear", "random", "listed6", "clear6", "random6", "ms", "why")
    for row in document["lists"]:
        answers = {(each["family"], each["role"]): _answer(each) for each in row["probes"]}
        paused = " (paused)" if row["paused"] else ""
        rows.add_row(
            row["name"],
            row["state"] + paused,
            *(answers.get((family, role), "") for family in ("ipv4", "ipv6") for role in ("listed", "clear", "random")),
            "" if row["milliseconds"] is None else str(row["milliseconds"]),
            row["why"] + (f" ({row['says']})" if row["says"] else ""),
            style=_STYLES[row["state"]],
        )
    out.print(rows)
    if document["resolver"]:
        out.print(f"resolver {document['resolver']}: {document['advice']}", style="red")


def _answer(probe: dict[str, Any]) -> str:
    return " ".join(probe["codes"]) or str(probe["answer"])
