"""Header fields under our names: those that come from outside go, however many, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mailhost.policies import sample_policy
from mailhost.site import ARRIVING, FORGED, RECIPIENT, SENDER, Site, message

OpenSite = Callable[..., Site]

CLEAN, LISTED, QUARANTINED = "198.51.100.7", "198.51.100.12", "198.51.100.21"
SCORE, ACTION = FORGED
TOLD = {
    CLEAN: [],
    LISTED: ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"],
    QUARANTINED: ["X-DNSBL-Score: 9 (spamcop=+4 zen=SBL:+5)", "X-DNSBL-Action: quarantine"],
}

# label, header fields under our names
FORGERIES = (
    ("none", []),
    ("one score", [SCORE]),
    ("one action", [ACTION]),
    ("two, of one kind", [ACTION, ACTION]),
    ("two, of each kind", [SCORE, ACTION, SCORE, ACTION]),
    ("seven", [SCORE] * 7),
    ("seven, and two", [*[SCORE] * 4, ACTION, *[SCORE] * 3, ACTION]),
    ("a hundred", [SCORE, ACTION] * 50),
    ("as if we had told so", ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"]),
    ("any case", ["x-dnsbl-score: 1", "X-Dnsbl-ACTION: a", "X-DNSBL-SCORE: 2", "X-dnsbl-Score: 3"]),
    ("a blank before the colon", ["X-DNSBL-Score : 1", "X-DNSBL-Action\t: a", "X-DNSBL-Score \t : 2"]),
    ("no blank after the colon", ["X-DNSBL-Score:1", "X-DNSBL-Action:a"]),
    ("empty", ["X-DNSBL-Score:", "X-DNSBL-Action: ", "X-DNSBL-Score:\t"]),
    ("folded", ["X-DNSBL-Score: 1\n\t(zen=\n SBL)", "X-DNSBL-Action:\n accept", "X-DNSBL-Score: 2\n   \n\t3"]),
    ("8-bit and long", ["X-DNSBL-Score: caf\xe9 \xff\xfe", f"X-DNSBL-Action: {'a' * 900}", "X-DNSBL-Score: \xc3\xa9"]),
    ("percent signs and quotes", ['X-DNSBL-Score: 100% %s %n "', "X-DNSBL-Action: (unbalanced"]),
)
# Not ours, though the names come near.
OTHERS = [
    "X-DNSBL-Scores: 1",
    "X-DNSBL: 2",
    "XX-DNSBL-Score: 3",
    "X-DNSBL-Score-: 4",
    "X-Keep: first",
    "X-Keep: second",
    "X-Folded: one\n\ttwo\n three",
    "X-Odd: caf\xe9 \xff",
]


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    return open_site(sample_policy())


def scattered(forged: list[str]) -> list[str]:
    """Return the forged header fields among others: in front, in between, at the end."""
    fields = [*ARRIVING, *OTHERS]
    for number, field in enumerate(forged):
        fields.insert((number * 5) % (len(fields) + 1), field)
    return fields


@pytest.mark.parametrize("source", TOLD)
@pytest.mark.parametrize("forged", [row[1] for row in FORGERIES], ids=[row[0] for row in FORGERIES])
def test_forged_fields_go_and_others_stay_in_order(site: Site, source: str, forged: list[str]) -> None:
    content = message(*scattered(forged), body="X-DNSBL-Score: 1\n\nX-DNSBL-Action: stays\n")
    outcome = site.send(source, content=content)
    assert outcome.accepted
    for entry in site.host.quarantined():
        assert (entry.id, entry.reason) == (outcome.queue_id, "dnsbl-milter score=9 lists=zen,spamcop")
        site.host.release(entry.id)
    assert site.delivered() == [([*ARRIVING, *OTHERS], TOLD[source])]
    (raw,) = site.host.raw_messages(RECIPIENT)
    assert raw.endswith(b"\n\nX-DNSBL-Score: 1\n\nX-DNSBL-Action: stays\n")
    (decision,) = site.decisions()
    assert decision["queue"] == outcome.queue_id
    assert decision["enforced"] == {CLEAN: "accept", LISTED: "tag", QUARANTINED: "quarantine"}[source]


def test_each_message_of_a_connection_is_cleaned_of_its_own(site: Site) -> None:
    counts = (7, 0, 1, 3, 0, 2)
    with site.connect(LISTED) as client:
        for count in counts:
            assert client.send_message(SENDER, RECIPIENT, message(*scattered(FORGED * count))).accepted
    assert site.delivered() == [([*ARRIVING, *OTHERS], TOLD[LISTED])] * len(counts)
    assert [decision["enforced"] for decision in site.decisions()] == ["tag"] * len(counts)


def test_an_exempt_recipient_gets_no_forged_fields_either(site: Site) -> None:
    assert site.send(LISTED, "postmaster@acme123.com", message(*scattered(FORGED * 2))).accepted
    assert site.delivered("postmaster") == [([*ARRIVING, *OTHERS], [])]
    (decision,) = site.decisions()
    assert (decision["action"], decision["exempt"]) == ("accept", "recipient")


def test_all_recipients_of_a_message_are_told(site: Site) -> None:
    recipients = [RECIPIENT, "postmaster@acme123.com", "bob@acme123.com"]
    assert site.send(LISTED, recipients, message(*scattered(FORGED))).accepted
    for recipient in recipients:
        assert site.delivered(recipient) == [([*ARRIVING, *OTHERS], TOLD[LISTED])]
    assert [decision["enforced"] for decision in site.decisions()] == ["tag", "accept", "tag"]
