"""What is wrong between Sendmail and us on this host, and how to put it right: one small function a check.

Floor 3: standard library only.
"""

import os
import pwd
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from dnsbl_milter.listen import Endpoint
from dnsbl_milter.patient import Finding, Patient


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
