"""`doctor` reads the .cf that m4 makes of a real .mc, and knocks at the milter's real socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailhost.daemon import Daemon, command
from mailhost.policies import sample_policy

POLICY = sample_policy([{"name": "zen", "zone": "zen.example", "weight": 4}], dns={"nameservers": ["127.0.0.2"], "deadline": 1, "retry": 0.5})
CF = Path("/run/mailhost/sendmail/sendmail.cf")

ROWS = [
    # what is wrong, further lines of the .mc, the check that finds it, what it says, a word of the fix
    ("the filter is defined and not used", "define(`confINPUT_MAIL_FILTERS', `')dnl", "Sendmail", "does not use it", "confINPUT_MAIL_FILTERS"),
    ("macros of MAIL are taken away", "define(`confMILTER_MACROS_ENVFROM', `i')dnl", "macros", "{auth_authen}", "confMILTER_MACROS_ENVFROM"),
]


def found(daemon: Daemon, *checks: str) -> dict[str, tuple[bool | None, str, str]]:
    """Return what these checks find, which must be one thing each."""
    document = json.loads(command("doctor", "--config", daemon.configuration, "--cf", CF, "--json").stdout)
    findings = [each for each in document["findings"] if each["check"] in checks]
    assert sorted(each["check"] for each in findings) == sorted(checks)
    return {each["check"]: (each["ok"], each["says"], each["fix"]) for each in findings}


def test_a_host_as_the_readme_has_it_is_well(open_site) -> None:
    site = open_site(POLICY)
    assert {check: ok for check, (ok, _, _) in found(site.daemon, "socket", "Sendmail", "macros").items()} == dict.fromkeys(("socket", "Sendmail", "macros"), True)


@pytest.mark.parametrize(("extra", "check", "says", "fix"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_filter_that_is_not_as_it_should_be(open_site, extra, check, says, fix) -> None:
    ok, what, how = found(open_site(POLICY, extra=extra).daemon, check)[check]
    assert ok is False
    assert says in what
    assert fix in how


def test_a_sendmail_without_the_filter(open_site, start_mail_host) -> None:
    daemon = open_site(POLICY).daemon
    configuration = daemon.configuration.read_text()
    start_mail_host()
    # The milter has ended with the mail host before: two faults, and each is told.
    daemon.configuration.write_text(configuration)
    findings = found(daemon, "socket", "Sendmail", "macros")
    assert (findings["Sendmail"][:2], findings["macros"][0]) == ((False, "has no filter that leads to our socket"), None)
    assert "INPUT_MAIL_FILTER(`dnsbl-milter', `S=" in findings["Sendmail"][2]
    assert findings["socket"][0] is False
    assert "systemctl start dnsbl-milter" in findings["socket"][2]
