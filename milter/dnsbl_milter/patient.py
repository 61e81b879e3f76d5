"""The set-up that is examined, and what an examination finds.

Floor 3: standard library only. Each question to a nameserver, a list or a file is asked once, however many checks need it.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dnsbl_milter.cf import Compiled, Filter, read_cf
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.listen import Endpoint, parse_endpoint
from dnsbl_milter.nameserver import Nameserver, Spoken
from dnsbl_milter.survey import survey

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found about one thing; `ok` is None where there was nothing to check."""

    check: str
    about: str
    ok: bool | None
    says: str
    fix: str = ""


@dataclass(frozen=True)
class Patient:
    """What is examined, each question asked once."""

    configuration: Configuration
    cf: Path
    now: float

    @cached_property
    def survey(self) -> dict[str, Any]:
        """Return what every list answers now."""
        return survey(self.configuration)

    @cached_property
    def spoken(self) -> dict[Nameserver, list[Spoken]]:
        """Return how each nameserver answered a question that it can answer by itself, asked several times."""
        name = f"{os.urandom(8).hex()}.invalid."
        deadline = self.configuration.settings.dns.deadline
        asked: dict[Nameserver, list[Spoken]] = {}
        for each in self.configuration.nameservers:
            first = each.ask(name, "A", deadline)
            rest = [each.ask(name, "A", deadline) for _ in range(_TRIES - 1)] if first else []
            asked[each] = [spoken for spoken in (first, *rest) if spoken is not None]
        return asked

    @property
    def answering(self) -> list[Nameserver]:
        """Return the nameservers that answer at all."""
        return [each for each, spoken in self.spoken.items() if spoken]

    @cached_property
    def root(self) -> dict[Nameserver, Spoken | None]:
        """Return what each nameserver says about the root, which is signed."""
        deadline = self.configuration.settings.dns.deadline
        return {each: each.ask(".", "SOA", deadline) for each in self.answering}

    @cached_property
    def compiled(self) -> Compiled | None:
        """Return Sendmail's configuration, or None if it cannot be read."""
        try:
            return read_cf(self.cf.read_text("utf-8", "replace"))
        except OSError:
            return None

    @property
    def filter(self) -> Filter | None:
        """Return the filter that leads to our socket."""
        endpoint = self.configuration.endpoint
        return next((each for each in self.compiled.filters if _leads_to(each, endpoint)), None) if self.compiled else None


def _leads_to(filter_: Filter, endpoint: Endpoint) -> bool:
    try:
        return parse_endpoint(filter_.socket) == endpoint
    except ValueError:
        return False
