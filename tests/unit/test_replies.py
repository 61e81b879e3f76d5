"""What senders, recipients and queues are told."""

from ipaddress import ip_address

import pytest

from dnsbl_milter.replies import LONGEST, headers, lists_field, quarantine_reason, refusal, separately
from dnsbl_policy.actions import Action
from dnsbl_policy.scoring import Contribution, Verdict

CLIENT = ip_address("198.51.100.7")
CODE = 0x7F000002


def verdict(*contributions: tuple[str, str, int], client=CLIENT, **others) -> Verdict:
    """Return a verdict that came from these: the list's name, the rule's label, the hundredths."""
    made = tuple(Contribution(name, label, CODE, weight) for name, label, weight in contributions)
    return Verdict(client, Action.REJECT, Action.REJECT, score=sum(each.weight for each in made), contributions=made, **others)


REFUSALS = [
    # action, contributions, addresses, reply
    (
        Action.REJECT,
        [("zen", "SBL", 500)],
        {"zen": "https://check.example/198.51.100.7"},
        "550 5.7.1 Mail from 198.51.100.7 is refused: listed by zen; see https://check.example/198.51.100.7",
    ),
    (
        Action.DEFER,
        [("zen", "SBL", 500)],
        {"zen": "https://check.example/198.51.100.7"},
        "451 4.7.1 Mail from 198.51.100.7 is deferred, please try again later: listed by zen; see https://check.example/198.51.100.7",
    ),
    # The strongest first, whatever their order; only the first one's address.
    (
        Action.REJECT,
        [("a", "", 100), ("b", "x", 300), ("b", "y", 300), ("c", "", 500)],
        {"a": "https://a.example/", "b": "https://b.example/", "c": "https://c.example/"},
        "550 5.7.1 Mail from 198.51.100.7 is refused: listed by b, c, a; see https://b.example/",
    ),
    # A list that speaks for the client is not named, nor one that cancels itself out.
    (
        Action.REJECT,
        [("a", "", 900), ("friend", "", -100), ("both", "x", 200), ("both", "y", -200)],
        {},
        "550 5.7.1 Mail from 198.51.100.7 is refused: listed by a",
    ),
    (Action.REJECT, [("a", "", 900), ("b", "", 100)], {"a": "", "b": "https://b.example/"}, "550 5.7.1 Mail from 198.51.100.7 is refused: listed by a, b"),
    # Written once here, and doubled only on its way to libmilter.
    (
        Action.REJECT,
        [("a", "", 900)],
        {"a": "https://a.example/?next=%2Fip%2F198.51.100.7"},
        "550 5.7.1 Mail from 198.51.100.7 is refused: listed by a; see https://a.example/?next=%2Fip%2F198.51.100.7",
    ),
    (
        Action.REJECT,
        [("a", "", 900)],
        {"a": "https://a.example/\r\n250 2.0.0 é\x7f"},
        "550 5.7.1 Mail from 198.51.100.7 is refused: listed by a; see https://a.example/??250 2.0.0 ??",
    ),
]


@pytest.mark.parametrize(("action", "contributions", "addresses", "reply"), REFUSALS)
def test_a_refusal_names_the_lists_and_where_to_look(action, contributions, addresses, reply):
    assert str(refusal(verdict(*contributions), action, addresses)) == reply


def test_the_parts_of_a_reply():
    deferral, rejection = (refusal(verdict(("a", "", 900)), action, {}) for action in (Action.DEFER, Action.REJECT))
    assert (deferral.code, deferral.enhanced) == ("451", "4.7.1")
    assert (rejection.code, rejection.enhanced) == ("550", "5.7.1")
    assert str(separately()) == "451 4.7.1 This recipient needs a message of its own, please send it again separately"


def test_an_ipv6_client_is_named():
    reply = refusal(verdict(("a", "", 900), client=ip_address("2001:db8::7")), Action.REJECT, {})
    assert reply.text == "Mail from 2001:db8::7 is refused: listed by a"


@pytest.mark.parametrize("address", ["", "https://a.example/198.51.100.7", "https://a.example/" + "%2F" * 94])
@pytest.mark.parametrize("count", [12, 13, 14, 60, 500])
def test_a_reply_is_never_longer_than_libmilter_takes(count, address):
    names = [f"{number:03}{'x' * 61}" for number in range(count)]
    reply = refusal(verdict(*((name, "", 900) for name in names)), Action.DEFER, dict.fromkeys(names, address))
    sent = reply.text.replace("%", "%%")
    assert len(sent) <= LONGEST == 900
    assert reply.text.endswith(f"; see {address}" if address else reply.text)
    body = reply.text.removesuffix(f"; see {address}" if address else "").partition("listed by ")[2]
    named, _, more = body.partition(" and ")
    assert named.split(", ") == names[: len(named.split(", "))]
    if more:
        assert more == f"{count - len(named.split(', '))} more"
        # As many as fit: one more name would be too long.
        assert len(sent) + len(names[0]) + 2 > LONGEST
    else:
        assert len(named.split(", ")) == count


def test_every_length_of_an_address_leaves_room_for_what_fits():
    names = [f"{number:03}{'x' * 61}" for number in range(60)]
    contributions = [(name, "", 900) for name in names]
    lengths = []
    for length in range(130):
        reply = refusal(verdict(*contributions), Action.REJECT, dict.fromkeys(names, "https://a.example/" + "x" * length))
        lengths.append(len(reply.text))
    assert max(lengths) == LONGEST


def test_no_name_at_all_fits():
    reply = refusal(verdict(("n" * 64, "", 900)), Action.REJECT, {"n" * 64: "x" * 820})
    assert len(reply.text) <= LONGEST
    assert "listed by  and 1 more; see xxx" in reply.text


HEADERS = [
    ([], Action.ACCEPT, "0", "accept"),
    ([("zen", "SBL", 500), ("spamcop", "", 400), ("dnswl", "trusted", -150)], Action.TAG, "7.5 (zen=SBL:+5 spamcop=+4 dnswl=trusted:-1.5)", "tag"),
    ([("a", "", 5)], Action.QUARANTINE, "0.05 (a=+0.05)", "quarantine"),
    ([("a", "", 0), ("b", "x", -10)], Action.ACCEPT, "-0.1 (a=+0 b=x:-0.1)", "accept"),
]  # fmt: skip


@pytest.mark.parametrize(("contributions", "action", "score", "done"), HEADERS)
def test_headers(contributions, action, score, done):
    assert headers(verdict(*contributions), action) == (("X-DNSBL-Score", score), ("X-DNSBL-Action", done))


def test_the_reason_of_a_quarantine():
    found = verdict(("a", "", 300), ("friend", "", -50), ("b", "x", 550))
    assert quarantine_reason(found) == "dnsbl-milter score=8 lists=b,a"


def test_the_reason_of_a_quarantine_is_no_longer_than_a_reply():
    found = verdict(*((f"{number:03}{'x' * 61}", "", 100) for number in range(60)))
    assert len(quarantine_reason(found)) <= LONGEST
    assert quarantine_reason(found).startswith("dnsbl-milter score=60 lists=000xxx")


def test_contributions_in_the_log():
    assert lists_field(()) == ""
    made = (Contribution("zen", "SBL", CODE, 500), Contribution("friend", "", 0x7F00000A, -150))
    assert lists_field(made) == "zen:SBL:5,friend:127.0.0.10:-1.5"
