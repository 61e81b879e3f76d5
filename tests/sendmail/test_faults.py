"""A bug of ours costs nobody mail: each callback in turn is broken, and Sendmail goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dnsbl_milter.repeats import Repeats
from mailhost.daemon import environment
from mailhost.policies import sample_policy
from mailhost.site import ARRIVING, FORGED, FORGING, RECIPIENT, SENDER, Site

OpenSite = Callable[..., Site]

LISTED = "198.51.100.12"
TAG = ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"]
BROKEN = '''\
"""Python imports this before everything else."""
from dnsbl_milter.session import Session

def broken(*_):
    raise RuntimeError('100% "broken" action=reject\\n\\u2028second line \\x1b[31m')

Session.{callback} = broken
'''

# callback, how often it is called for two messages of one connection, what the header fields under our names are
# afterwards
CALLBACKS = (
    ("connect", 1, []),  # nothing is known of the client
    ("hello", 1, TAG),
    ("envfrom", 2, TAG),
    ("envrcpt", 2, []),
    ("header", 2 * len([*FORGED, *ARRIVING]), [*FORGED, *TAG]),
    ("eom", 2, FORGED),
    ("close", 1, TAG),
)


@pytest.mark.parametrize(("callback", "calls", "ours"), CALLBACKS, ids=[row[0] for row in CALLBACKS])
def test_a_broken_callback_costs_nobody_mail(
    open_site: OpenSite, tmp_path: Path, callback: str, calls: int, ours: list[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN.format(callback=callback))
    site = open_site(sample_policy(), wrapper=("env", f"PYTHONPATH={tmp_path}:{environment()['PYTHONPATH']}"))
    site.excused.add("callback failed")
    with site.connect(LISTED) as client:
        client.ehlo()
        for _ in range(2):
            assert client.mail(SENDER).code == 250
            assert client.rcpt(RECIPIENT).code == 250
            assert client.data().code == 354
            assert client.message(FORGING).code == 250
            client.rset()
    site.daemon.wait_until_idle()
    assert [(others, sorted(fields)) for others, fields in site.delivered()] == [(ARRIVING, sorted(ours))] * 2
    assert site.host.quarantined() == site.host.queue() == []
    failures = [event for event in site.events() if event["event"] == "callback failed"]
    assert [(event["level"], event["callback"]) for event in failures] == [("error", callback)] * min(calls, Repeats.LINES)
    assert [event["repeated"] for event in failures] == ["0"] * len(failures)
    for failure in failures:
        # One line, and all of it.
        assert str(failure["traceback"]).startswith("Traceback (most recent call last):\n")
        assert str(failure["traceback"]).endswith('100% "broken" action=reject\n\u2028second line \x1b[31m')
