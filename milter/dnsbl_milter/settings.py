"""The configuration file as it is written: every key with its type, its range and its default.

Floor 2: the home of pydantic. `configuration` turns what is read here into the policy.
"""

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from dnsbl_milter import values
from dnsbl_milter.listen import parse_endpoint
from dnsbl_milter.nameserver import parse_nameserver
from dnsbl_policy.allow import parse_host, parse_network, parse_recipient
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.points import hundredths


def _checked(check: Any) -> AfterValidator:
    """Return a validator that keeps the value as written if the policy's own reader takes it."""

    def keep(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(keep)


Points = Annotated[float, _checked(hundredths), Field(allow_inf_nan=False)]
Seconds = Annotated[int, Field(ge=0, le=315_360_000)]


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are faults, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MilterSection(Section):
    """Where Sendmail finds the milter, and the processes that serve it."""

    socket: Annotated[str, _checked(parse_endpoint)] = "local:/run/dnsbl-milter/milter.sock"
    socket_mode: Annotated[str, _checked(values.mode)] = "0660"
    workers: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 4), ge=1, le=64)
    drain_seconds: float = Field(30, ge=0, le=3600)


class DnsSection(Section):
    """How lists are asked; times in seconds."""

    nameservers: list[Annotated[str, _checked(parse_nameserver)]] = []
    deadline: float = Field(2.0, ge=0.05, le=30)
    retry: float = Field(0.7, ge=0.02, le=30)


class CacheSection(Section):
    """How much is remembered, in clients for each worker, and for how long, in seconds."""

    clients: int = Field(100_000, ge=1, le=10_000_000)
    min_ttl: int = Field(60, ge=0, le=86_400)
    max_ttl: int = Field(3600, ge=1, le=604_800)
    # RFC 9520, section 3.2: failures must not be remembered for more than five minutes.
    error_ttl: int = Field(30, ge=1, le=300)


class ActionsSection(Section):
    """The score from which each action is taken; an action left out is never taken."""

    tag: Points | None = None
    defer: Points | None = None
    quarantine: Points | None = None
    reject: Points | None = None
    discard: Points | None = None
    mode: Literal["enforce", "observe"] = "enforce"


class HeadersSection(Section):
    """Which messages get our headers."""

    add: Literal["always", "tagged", "never"] = "tagged"


class AllowSection(Section):
    """Who is never judged."""

    networks: list[Annotated[str, _checked(parse_network)]] = []
    hosts: list[Annotated[str, _checked(parse_host)]] = []
    recipients: list[Annotated[str, _checked(parse_recipient)]] = ["postmaster@", "abuse@"]
    authenticated: bool = True
    files: list[str] = []


class MemorySection(Section):
    """What makes a deferral forgive; times in seconds."""

    # May hold a password, as a list's zone may hold a key: neither is for a log or a traceback.
    url: Annotated[str, _checked(values.memory)] = Field("sqlite:///var/lib/dnsbl-milter/memory.db", repr=False)
    delay: Seconds = 300
    window: Seconds = 172_800
    remember: Seconds = 3_024_000
    password_file: str = ""


class MetricsSection(Section):
    """Where metrics are served."""

    listen: Annotated[str, _checked(values.listen)] = "127.0.0.1:10782"


class LogSection(Section):
    """How the log is written."""

    format: Literal["logfmt", "json"] = "logfmt"
    level: Literal["debug", "info", "warning", "error"] = "info"


class HealthSection(Section):
    """How lists are watched; seconds between probes."""

    interval: int = Field(300, ge=1, le=86_400)
    proof: bool = True
    enabled: bool = True


class CodeRule(Section):
    """What the return codes that match weigh."""

    match: Annotated[str, _checked(parse_pattern)]
    weight: Points
    label: Annotated[str, _checked(values.name)] | None = None


class ExpectTable(Section):
    """Where a list departs from RFC 5782's test entries."""

    listed: Annotated[str, _checked(values.code)] | None = None
    clear: Annotated[str, _checked(values.space)] | None = None


class ListSection(Section):
    """A list: where it is asked, and what its answers weigh."""

    name: Annotated[str, _checked(values.name)] | None = None
    zone: Annotated[str, _checked(values.zone)] = Field(repr=False)
    weight: Points | None = None
    codes: list[CodeRule] = []
    group: Annotated[str, _checked(values.name)] | None = None
    observe: bool = False
    enabled: bool = True
    ipv4: bool | None = None
    ipv6: bool | None = None
    timeout: float | None = Field(None, ge=0.02, le=30)
    url: Annotated[str, _checked(values.url)] | None = None
    scope: Literal["ip", "net24", "asn", "dynamic", "name"] | None = None
    key_file: str | None = None
    expect: ExpectTable = ExpectTable()
    allow_dead: bool = False

    @field_validator("zone")
    @classmethod
    def _fold(cls, value: str) -> str:
        # The key keeps its case: operators may tell upper from lower there, though DNS does not.
        return values.KEY.join(part.lower() for part in value.split(values.KEY)).removesuffix(".")


class GroupTable(Section):
    """Lists that draw on the same evidence: the most that they add together."""

    cap: Points


_Lists = list[ListSection]
"""Named here, for inside `Settings` the field called list hides the type."""


class Settings(Section):
    """The whole file."""

    milter: MilterSection = MilterSection()
    dns: DnsSection = DnsSection()
    cache: CacheSection = CacheSection()
    actions: ActionsSection = ActionsSection()
    headers: HeadersSection = HeadersSection()
    allow: AllowSection = AllowSection()
    memory: MemorySection = MemorySection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()
    health: HealthSection = HealthSection()
    list: _Lists = []
    groups: dict[str, GroupTable] = {}


class Invalid(ValueError):
    """A configuration that cannot be used: every fault, each with its key's path."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{path}: {what}" if path else what for path, what in faults))
        self.faults = faults


def parse_settings(document: dict[str, Any]) -> tuple[Settings | None, list[dict[str, Any]]]:
    """Read a parsed TOML document; return the settings, or None and pydantic's account of every fault."""
    try:
        return Settings.model_validate(document), []
    except ValidationError as fault:
        return None, [dict(error) for error in fault.errors(include_url=False)]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors."""
    return Settings.model_json_schema()


def section_keys(location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are known at the place of a faulty key, for the message."""
    kind: type[Section] = Settings
    for step in location[:-1]:
        # Below a table whose keys anybody may name there is one kind only.
        if isinstance(step, str) and kind is not GroupTable:
            kind = _SECTIONS.get(step, kind)
    return list(kind.model_fields)


_SECTIONS: dict[str, type[Section]] = {
    "milter": MilterSection,
    "dns": DnsSection,
    "cache": CacheSection,
    "actions": ActionsSection,
    "headers": HeadersSection,
    "allow": AllowSection,
    "memory": MemorySection,
    "metrics": MetricsSection,
    "log": LogSection,
    "health": HealthSection,
    "list": ListSection,
    "codes": CodeRule,
    "expect": ExpectTable,
    "groups": GroupTable,
}
