"""What is wrong with the set-up around the milter, and how to put it right: all checks, and those of lists and clock.

Floor 3: standard library only. Makes plain findings; `cli` shows them.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dnsbl_milter.configuration import Configuration, catalog
from dnsbl_milter.host_checks import sendmail_knows_us, sendmail_sends_macros, socket_can_be_reached
from dnsbl_milter.nameserver_checks import (
    OWN,
    dnssec_works,
    nameserver_answers,
    nameserver_does_not_rewrite,
    nameserver_is_near,
    nameserver_is_our_own,
    tcp_works,
)
from dnsbl_milter.patient import Finding, Patient

DEFAULT_CF = Path("/etc/mail/sendmail.cf")


def configuration_has_no_warnings(patient: Patient) -> Iterator[Finding]:
    """Repeat what the configuration is warned of."""
    for warning in patient.configuration.warnings:
        yield Finding("configuration", patient.configuration.source, False, warning, "change or remove it")
    if not patient.configuration.warnings:
        yield Finding("configuration", patient.configuration.source, True, "is fine")


def operators_answer_us(patient: Patient) -> Iterator[Finding]:
    """Tell which lists answer with operators' error codes."""
    refusing = [row["name"] for row in patient.survey["lists"] if _refuses(row)]
    if not patient.survey["lists"]:
        yield Finding("error codes", "lists", None, "there is no list")
    elif refusing:
        says = f"answers with an operator's error code: {', '.join(refusing)}"
        fix = f"{OWN}; or get a key from the operator"
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
