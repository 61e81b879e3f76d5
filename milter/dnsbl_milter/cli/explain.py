"""`explain`: what a client would meet, and why.

Floor 5.
"""

from pathlib import Path
from typing import Any

import click

from dnsbl_milter.cli.common import config_option, configured, console, json_option, print_json, table
from dnsbl_milter.explain import explain as explain_client
from dnsbl_policy.lists import parse_client


@click.command()
@click.argument("address")
@click.option("--host", metavar="NAME", help="The client's host name, taken for verified.")
@click.option("--helo", metavar="NAME", help="The name given at HELO; shown, and of no weight.")
@click.option("--sender", metavar="ADDRESS", help="The envelope sender; shown, and of no weight.")
@click.option("--recipient", metavar="ADDRESS", help="The recipient, who may be exempt.")
@config_option
@json_option
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
    document = explain_client(configured(path), client, host=host, recipient=recipient)
    document |= {"helo": helo, "sender": sender, "recipient": recipient}
    if as_json:
        print_json(document)
    else:
        _show_explanation(document)


def _show_explanation(document: dict[str, Any]) -> None:
    out = console()
    rows = table("list", "state", "codes", "meaning", "weight", "ttl", "ms", "proof", "why")
    for row in document["lists"]:
        rows.add_row(
            row["name"],
            row["state"] + (" (observed)" if row["observe"] else ""),
            " ".join(row["codes"]),
            " ".join(row["labels"]),
            f"{row['weight']:+g}" if row["weight"] else "",
            "" if row["ttl"] is None else str(row["ttl"]),
            "" if row["milliseconds"] is None else str(row["milliseconds"]),
            row["proof"] or "",
            row["why"] or "",
            style={"listed": "red", "clear": "green", "unknown": "yellow"}.get(row["state"], "dim"),
        )
    for name in ("client", "host", "helo", "sender", "recipient"):
        if document[name]:
            out.print(f"{name:10}{_printable(document[name])}")
    out.print(rows)
    out.print(f"score     {document['score']:g}, between {document['low']:g} and {document['high']:g}")
    out.print(f"exempt    {document['exempt'] or 'no'}")
    softened = "" if document["action"] == document["asked"] else f", softened from {document['asked']}"
    observed = "" if document["enforced"] else " (observe mode: nothing is done)"
    out.print(f"action    {document['action']}{softened}{observed}", style="bold")
    if document["decisive"]:
        out.print(f"decisive  {', '.join(document['decisive'])}")
    if document["reply"]:
        out.print(f"reply     {document['reply']}")
    for name, value in document["headers"].items():
        out.print(f"header    {name}: {value}")
    if document["quarantine"]:
        out.print(f"queue     {document['quarantine']}")


def _printable(text: str) -> str:
    # What was given on the command line may be copied from a log, with whatever a client said.
    return text if text.isprintable() else repr(text)[1:-1]
