"""What is wrong with the set-up around the milter, and how to put it right: one small function a check.

Floor 3: standard library only. Makes plain findings; `cli` shows them.
"""

import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dnsbl_milter.cf import Compiled, Filter, read_cf
from dnsbl_milter.configuration import Configuration, catalog
from dnsbl_milter.listen import Endpoint, parse_endpoint
from dnsbl_milter.nameserver import Nameserver, Spoken
from dnsbl_milter.survey import survey
from dnsbl_milter.wire import NXDOMAIN, REFUSED, SERVFAIL

DEFAULT_CF = Path("/etc/mail/sendmail.cf")
NEAR_SECONDS = 0.02
"""A resolver on this host or beside it answers from its cache in a fraction of that."""
_TRIES = 3
_OWN = 'install a caching resolver such as unbound on this host, and name it: dns.nameservers = ["127.0.0.1"]'

PUBLIC = {
    # Resolvers that all the world may use, and that list operators refuse for that reason.
    "8.8.8.8": "Google", "8.8.4.4": "Google", "2001:4860:4860::8888": "Google", "2001:4860:4860::8844": "Google",
    "1.1.1.1": "Cloudflare", "1.0.0.1": "Cloudflare", "2606:4700:4700::1111": "Cloudflare", "2606:4700:4700::1001": "Cloudflare",
    "9.9.9.9": "Quad9", "149.112.112.112": "Quad9", "2620:fe::fe": "Quad9", "2620:fe::9": "Quad9",
    "208.67.222.222": "OpenDNS", "208.67.220.220": "OpenDNS", "2620:119:35::35": "OpenDNS", "2620:119:53::53": "OpenDNS",
    "94.140.14.14": "AdGuard", "94.140.15.15": "AdGuard", "76.76.2.0": "Control D", "76.76.10.0": "Control D",
    "4.2.2.1": "Level 3", "4.2.2.2": "Level 3", "64.6.64.6": "Verisign", "64.6.65.6": "Verisign",
    "185.228.168.9": "CleanBrowsing", "185.228.169.9": "CleanBrowsing", "77.88.8.8": "Yandex", "77.88.8.1": "Yandex",
}  # fmt: skip


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


def nameserver_answers(patient: Patient) -> Iterator[Finding]:
    """Tell which nameservers answer us."""
    for each, spoken in patient.spoken.items():
        if not spoken:
            fix = f"start it, or name another under dns.nameservers; {_OWN}"
            yield Finding("nameserver", str(each), False, "does not answer", fix)
        elif spoken[0].rcode == REFUSED:
            fix = "allow this host to ask it (unbound: access-control; BIND: allow-recursion), or name another"
            yield Finding("nameserver", str(each), False, "refuses to answer this host", fix)
        else:
            yield Finding("nameserver", str(each), True, "answers")


def nameserver_is_our_own(patient: Patient) -> Iterator[Finding]:
    """Tell which nameservers all the world shares."""
    for each in patient.configuration.nameservers:
        operator = PUBLIC.get(str(each.address))
        if operator:
            says = f"is {operator}'s public resolver, which list operators refuse"
            yield Finding("public resolver", str(each), False, says, _OWN)
        else:
            yield Finding("public resolver", str(each), True, "is no public resolver that we know")


def nameserver_does_not_rewrite(patient: Patient) -> Iterator[Finding]:
    """Tell whether names that do not exist are answered."""
    for each in patient.answering:
        if patient.spoken[each][0].answered or patient.survey["resolver"] == "rewrites":
            yield Finding("rewriting", str(each), False, "answers for names that do not exist", f"turn that off there, or {_OWN}")
        else:
            yield Finding("rewriting", str(each), True, "says so where a name does not exist")


def nameserver_is_near(patient: Patient) -> Iterator[Finding]:
    """Tell how long a nameserver takes for what it knows."""
    for each in patient.answering:
        best = min(spoken.seconds for spoken in patient.spoken[each])
        says = f"answers in {best * 1000:.1f} ms"
        yield Finding("latency", str(each), best <= NEAR_SECONDS, says, "" if best <= NEAR_SECONDS else _OWN)


def tcp_works(patient: Patient) -> Iterator[Finding]:
    """Tell whether long answers can be had."""
    for each in patient.answering:
        spoken = each.ask(f"{os.urandom(8).hex()}.invalid.", "A", patient.configuration.settings.dns.deadline, tcp=True)
        if spoken is None:
            fix = "open port 53 for TCP between this host and it"
            yield Finding("TCP", str(each), False, "does not answer over TCP: what is too long for a packet is lost", fix)
        else:
            yield Finding("TCP", str(each), True, "answers over TCP")


def dnssec_works(patient: Patient) -> Iterator[Finding]:
    """Tell whether a nameserver validates what is signed."""
    for each, spoken in patient.root.items():
        if spoken is None or spoken.rcode in (REFUSED, NXDOMAIN):
            yield Finding("DNSSEC", str(each), None, "says nothing about the root")
        elif spoken.rcode == SERVFAIL:
            unchecked = each.ask(".", "SOA", patient.configuration.settings.dns.deadline, unchecked=True)
            if unchecked is None or unchecked.rcode == SERVFAIL:
                yield Finding("DNSSEC", str(each), None, "says nothing about the root")
            else:
                fix = "set the clock, and renew its trust anchor (unbound-anchor)"
                yield Finding("DNSSEC", str(each), False, "cannot validate what is signed right", fix)
        elif spoken.authentic:
            yield Finding("DNSSEC", str(each), True, "validates")
        else:
            fix = "turn validation on (unbound: auto-trust-anchor-file; BIND: dnssec-validation auto)"
            yield Finding("DNSSEC", str(each), False, "does not validate, so forged answers pass", fix)


def operators_answer_us(patient: Patient) -> Iterator[Finding]:
    """Tell which lists answer with operators' error codes."""
    refusing = [row["name"] for row in patient.survey["lists"] if _refuses(row)]
    if not patient.survey["lists"]:
        yield Finding("error codes", "lists", None, "there is no list")
    elif refusing:
        says = f"answers with an operator's error code: {', '.join(refusing)}"
        fix = f"{_OWN}; or get a key from the operator"
        yield Finding("error codes", "lists", False, says, fix)
    else:
        yield Finding("error codes", "lists", True, "no list answers with an operator's error code")


def keys_are_valid(patient: Patient) -> Iterator[Finding]:
    """Tell whether lists accept their keys."""
    zones = {one.name: one.zone for one in patient.configuration.policy.lists}
    for row in patient.survey["lists"]:
        if row["zone"] == zones[row["name"]]:
            continue
        if row["symptom"] in ("refuses", "silent", "emptied"):
            fix = "compare its key_file with what the operator's account page shows"
            yield Finding("key", row["name"], False, f"does not accept its key: {row['why']}", fix)
        else:
            yield Finding("key", row["name"], True, "accepts its key")


def lists_are_sane(patient: Patient) -> Iterator[Finding]:
    """Tell how each list answers for what it must and must not list."""
    for row in patient.survey["lists"]:
        if row["state"] == "ok":
            yield Finding("list", row["name"], True, "lists what it must, and not what it must not")
        else:
            says, _, fix = row["why"].partition(": ")
            yield Finding("list", row["name"], False, says, fix or "look again with dnsbl-milter lists")


def socket_can_be_reached(patient: Patient) -> Iterator[Finding]:
    """Tell whether Sendmail's user can reach us."""
    endpoint = patient.configuration.endpoint
    user = patient.compiled.options.get("runasuser", "root").partition(":")[0] if patient.compiled else "root"
    about = str(endpoint)
    if endpoint.path:
        writable = next((str(folder) for folder in Path(endpoint.path).parents if _anybody_writes(folder)), None)
        if writable:
            fix = "put milter.socket under a folder that only root and the milter's user write to"
            yield Finding("socket", about, False, f"lies below {writable}, which anybody may write to: Sendmail refuses it", fix)
            return
    try:
        _connect_as(endpoint, user)
    except PermissionError:
        fix = f"add {user} to the group of the socket, and let the group reach its folder; milter.socket_mode is {patient.configuration.settings.milter.socket_mode}"
        yield Finding("socket", about, False, f"Sendmail's user {user} may not connect", fix)
    except (OSError, KeyError) as fault:
        yield Finding("socket", about, False, f"nobody serves it: {fault}", "start the milter: systemctl start dnsbl-milter")
    else:
        yield Finding("socket", about, True, f"Sendmail's user {user} can connect")


def sendmail_knows_us(patient: Patient) -> Iterator[Finding]:
    """Tell whether Sendmail calls us, and so that mail flows without us."""
    about, endpoint = str(patient.cf), patient.configuration.endpoint
    line = f"INPUT_MAIL_FILTER(`dnsbl-milter', `S={endpoint}, T=C:10s;S:10s;R:10s;E:30s')"
    if patient.compiled is None:
        yield Finding("Sendmail", about, None, "cannot be read; name it with --cf FILE")
        return
    ours = patient.filter
    if ours is None:
        fix = f"put {line} into the .mc, make, and restart Sendmail"
        yield Finding("Sendmail", about, False, "has no filter that leads to our socket", fix)
        return
    if ours.name not in patient.compiled.active:
        fix = f"use INPUT_MAIL_FILTER and not MAIL_FILTER, or name it in confINPUT_MAIL_FILTERS: {line}"
        yield Finding("Sendmail", about, False, f"defines the filter {ours.name}, and does not use it", fix)
        return
    if ours.flags:
        what = "refuses" if "R" in ours.flags else "delays"
        yield Finding("Sendmail", about, False, f"F={ours.flags} {what} all mail while the milter is down", f"leave F= out: {line}")
        return
    patience = ours.timeout("R")
    deadline = 2 * patient.configuration.settings.dns.deadline
    if patience is not None and patience <= deadline:
        fix = f"give it more than twice dns.deadline: {line}"
        yield Finding("Sendmail", about, False, f"T=R:{patience}s is too short for a recipient to wait for lists and proof", fix)
        return
    yield Finding("Sendmail", about, True, f"calls the filter {ours.name}")


def sendmail_sends_macros(patient: Patient) -> Iterator[Finding]:
    """Tell whether Sendmail tells us who has logged in, and the message's identifier."""
    if patient.compiled is None or patient.filter is None:
        yield Finding("macros", str(patient.cf), None, "there is no filter of ours")
        return
    wanted = ["i"] + ["{auth_authen}"] * patient.configuration.settings.allow.authenticated
    missing = [name for name in wanted if name not in patient.compiled.macros("envfrom")]
    if missing:
        fix = "leave confMILTER_MACROS_ENVFROM as Sendmail's default has it, or add them to it"
        says = f"does not send {', '.join(missing)} with MAIL: " + (
            "who has logged in would be judged" if "{auth_authen}" in missing else "the log lacks queue identifiers"
        )
        yield Finding("macros", str(patient.cf), False, says, fix)
    else:
        yield Finding("macros", str(patient.cf), True, "sends what is needed with MAIL")


def clock_is_right(patient: Patient) -> Iterator[Finding]:
    """Tell whether the clock agrees with what is known of the time."""
    fix = "set the clock, and keep it by NTP: systemctl enable --now systemd-timesyncd"
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(patient.now))
    checked = max((one.checked for one in catalog().lists), default="")
    if time.strftime("%Y-%m", time.gmtime(patient.now)) < checked:
        yield Finding("clock", shown, False, f"is behind: this program knows of {checked}", fix)
        return
    signed = [period for spoken in patient.root.values() if spoken is not None for period in spoken.signed]
    if any(not since <= patient.now <= until for since, until in signed):
        yield Finding("clock", shown, False, "does not agree with signatures of the root that are in force", fix)
    else:
        yield Finding("clock", shown, True, "agrees with the signatures of the root" if signed else "is not behind")


def configuration_has_no_warnings(patient: Patient) -> Iterator[Finding]:
    """Repeat what the configuration is warned of."""
    for warning in patient.configuration.warnings:
        yield Finding("configuration", patient.configuration.source, False, warning, "change or remove it")
    if not patient.configuration.warnings:
        yield Finding("configuration", patient.configuration.source, True, "is fine")


CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    configuration_has_no_warnings,
    nameserver_answers,
    nameserver_is_our_own,
    nameserver_does_not_rewrite,
    nameserver_is_near,
    tcp_works,
    dnssec_works,
    operators_answer_us,
    keys_are_valid,
    lists_are_sane,
    socket_can_be_reached,
    sendmail_knows_us,
    sendmail_sends_macros,
    clock_is_right,
)


def diagnose(configuration: Configuration, cf: Path, now: float) -> list[Finding]:
    """Make every check."""
    patient = Patient(configuration, cf, now)
    return [finding for check in CHECKS for finding in check(patient)]


def _refuses(row: dict[str, Any]) -> bool:
    return any(each["answer"] == "blocked" for each in row["probes"])


def _leads_to(filter_: Filter, endpoint: Endpoint) -> bool:
    try:
        return parse_endpoint(filter_.socket) == endpoint
    except ValueError:
        return False


def _anybody_writes(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def _connect_as(endpoint: Endpoint, user: str) -> None:
    """Connect to a socket as a user. Raises OSError, and KeyError for a user that does not exist.

    In a child, for there is no way back from another user; without the right to become it, as who we are.
    """
    if endpoint.family != socket.AF_UNIX or user == "root" or os.geteuid() != 0:
        _connect(endpoint)
        return
    entry = pwd.getpwnam(user)
    child = os.fork()
    if child == 0:
        status = 255
        try:
            os.initgroups(user, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
            _connect(endpoint)
            status = 0
        except OSError as fault:
            status = min(fault.errno or 255, 255)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, os.strerror(status))


def _connect(endpoint: Endpoint) -> None:
    with socket.socket(endpoint.family, socket.SOCK_STREAM) as probe:
        probe.settimeout(3)
        probe.connect(endpoint.address)
