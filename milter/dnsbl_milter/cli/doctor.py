"""`doctor`: what is wrong with the set-up, and how to put it right.

Floor 5.
"""

import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from dnsbl_milter.cli.common import config_option, configured, console, json_option, print_json
from dnsbl_milter.diagnosis import DEFAULT_CF, diagnose

_WORDS = {True: ("ok", "green"), False: ("PROBLEM", "bold red"), None: ("skipped", "dim")}


@click.command()
@config_option
@click.option(
    "--cf",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=DEFAULT_CF,
    help=f"Sendmail's configuration; by default {DEFAULT_CF}.",
)
@json_option
def doctor(path: Path | None, cf: Path, as_json: bool) -> None:
    """Check resolver, lists, socket, Sendmail and clock; exit status 1 if there is a problem."""
    findings = diagnose(configured(path), cf, time.time())
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings], "ok": all(each.ok is not False for each in findings)})
    else:
        out = console()
        for finding in findings:
            word, style = _WORDS[finding.ok]
            fix = f"; fix: {finding.fix}" if finding.fix else ""
            out.print(f"{word:8} {finding.check}: {finding.about} {finding.says}{fix}", style=style, soft_wrap=True)
    sys.exit(int(any(finding.ok is False for finding in findings)))
