"""`import sendmail`: from the configuration of a mail server to one of ours.

Floor 5.
"""

import sys
from pathlib import Path

import click

from dnsbl_milter.access import read_access, read_relay_domains
from dnsbl_milter.cli.common import fail
from dnsbl_milter.importing import Imported, Source, import_sendmail
from dnsbl_milter.mc import features

_FILE = click.Path(path_type=Path)


@click.group(name="import")
def imports() -> None:
    """Make a configuration from what a mail server was told."""


@imports.command()
@click.argument("macros", metavar="FILE.mc", type=_FILE)
@click.option("--access", metavar="FILE", type=_FILE, help="Exempt whom Sendmail's access map (its source) spared.")
@click.option("--relay-domains", metavar="FILE", type=_FILE, help="Exempt the clients that relay-domains names.")
@click.option("--output", metavar="FILE", type=_FILE, help="Write the configuration there; FILE must not exist.")
@click.option("--strict", is_flag=True, help="Refuse mail where Sendmail did, instead of weighing.")
def sendmail(macros: Path, access: Path | None, relay_domains: Path | None, output: Path | None, strict: bool) -> None:
    """Turn the FEATURE(dnsbl) and FEATURE(enhdnsbl) lines of FILE.mc into a configuration, with a report.

    The report names every line: carried over, changed, or left, and why. It goes to stdout; without --output the
    configuration does, and the report goes to stderr.
    """
    text = _read(macros)
    if text.startswith("#") and "\nV10/" in text:
        fail(f"{macros}: is a .cf; give the .mc that it was made from")
    try:
        lines = features(text)
        friends = any(line.name == "delay_checks" and line.argument(1)[:1].lower() == "f" for line in lines)
        imported = import_sendmail(
            str(macros),
            lines,
            access=Source(str(access), tuple(read_access(_read(access), friends=friends))) if access else None,
            relay_domains=Source(str(relay_domains), tuple(read_relay_domains(_read(relay_domains)))) if relay_domains else None,
            strict=strict,
        )
    except ValueError as fault:
        fail(f"{macros}: {fault}")
    if imported is None:
        click.echo(f"{macros}: no FEATURE(dnsbl) or FEATURE(enhdnsbl) in it, so there is nothing to import", err=True)
        sys.exit(1)
    if output is None:
        click.echo(imported.configuration, nl=False)
    else:
        _write(output, imported.configuration)
    _report(imported, output)


def _report(imported: Imported, output: Path | None) -> None:
    err = output is None
    for remark in imported.report:
        click.echo(str(remark), err=err)
    click.echo(f"lists: {imported.lists}" + (f", in {output}" if output else ""), err=err)


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as fault:
        fail(f"{path}: cannot be read: {fault.strerror}")
    if b"\0" in content:
        fail(f"{path}: is not text; give the source of a map, not the .db that makemap makes")
    return content.decode("utf-8", "replace")


def _write(path: Path, configuration: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(configuration)
    except FileExistsError:
        fail(f"{path}: exists, and is not overwritten; move it away, or give another name")
    except OSError as fault:
        fail(f"{path}: cannot be written: {fault.strerror}")
