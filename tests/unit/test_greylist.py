"""Who has to come back, who has come back in time, and what is taken for the same sender."""

import string
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dnsbl_policy.greylist import Recollection, Terms, Trace, attempt, fold_sender, network, triplet

DEFERRED, EARLY, PASSED, KNOWN = (
    Recollection.DEFERRED,
    Recollection.EARLY,
    Recollection.PASSED,
    Recollection.KNOWN,
)
TERMS = Terms(delay=300, window=1000, remember=5000)
NOW = 1_700_000_000.0


def waiting(age: float) -> Trace:
    return Trace(NOW - age)


def passed(age: float) -> Trace:
    return Trace(NOW - age, passed=True)


TRANSITIONS = [
    # what is remembered, the answer, what is remembered from then on
    ("nothing", None, DEFERRED, waiting(0)),
    ("at the same moment", waiting(0), EARLY, waiting(0)),
    ("at once", waiting(0.001), EARLY, waiting(0.001)),
    ("just before the delay is over", waiting(299.999), EARLY, waiting(299.999)),
    ("when the delay is over", waiting(300), PASSED, passed(0)),
    ("in the middle of the window", waiting(650), PASSED, passed(0)),
    ("at the window's end", waiting(1000), PASSED, passed(0)),
    ("after the window", waiting(1000.001), DEFERRED, waiting(0)),
    ("long after the window", waiting(4000), DEFERRED, waiting(0)),
    ("known, at the same moment", passed(0), KNOWN, passed(0)),
    ("known, sooner than the delay", passed(1), KNOWN, passed(0)),
    ("known, later than the window", passed(1001), KNOWN, passed(0)),
    ("known to the last", passed(5000), KNOWN, passed(0)),
    ("forgotten", passed(5000.001), DEFERRED, waiting(0)),
    ("first seen in the future: a short way", waiting(-1), EARLY, waiting(0)),
    ("first seen in the future: a delay", waiting(-300), EARLY, waiting(0)),
    ("first seen in the future: a window", waiting(-1000), EARLY, waiting(0)),
    ("first seen in the future: years", waiting(-3e8), EARLY, waiting(0)),
    ("last seen in the future: a short way", passed(-1), KNOWN, passed(0)),
    ("last seen in the future: years", passed(-3e8), KNOWN, passed(0)),
]


@pytest.mark.parametrize(("before", "answer", "after"), [row[1:] for row in TRANSITIONS], ids=[row[0] for row in TRANSITIONS])
def test_transitions(before, answer, after):
    assert attempt(before, NOW, TERMS) == (answer, after)


def test_without_a_delay_every_retry_is_in_time():
    terms = Terms(delay=0, window=1, remember=0)
    assert attempt(None, NOW, terms)[0] is DEFERRED
    assert attempt(waiting(0), NOW, terms)[0] is PASSED


def test_without_remembrance_a_sender_is_known_for_no_time():
    terms = Terms(delay=1, window=2, remember=0)
    assert attempt(passed(0), NOW, terms)[0] is KNOWN
    assert attempt(passed(0.5), NOW, terms) == (DEFERRED, waiting(0))


def test_use_renews_what_is_known():
    trace = passed(0)
    for days in range(1, 20):
        answer, trace = attempt(trace, NOW + days * 4000, TERMS)
        assert answer is KNOWN


def test_an_impatient_sender_is_not_kept_out_by_its_impatience():
    trace, answers = None, []
    for age in range(0, 400, 100):
        answer, trace = attempt(trace, NOW + age, TERMS)
        answers.append(answer)
    assert answers == [DEFERRED, EARLY, EARLY, PASSED]


@pytest.mark.parametrize("answer", Recollection)
def test_what_forgives(answer):
    assert answer.forgives == (str(answer) in ("passed", "known", "unavailable"))


# --- clocks that jump

moments = st.floats(0, 4e9)
traces = st.none() | st.builds(Trace, moments, st.booleans())
terms = st.builds(
    lambda delay, window, remember: Terms(delay, delay + window, remember),
    st.integers(0, 10_000), st.integers(1, 1_000_000), st.integers(0, 10_000_000),
)  # fmt: skip


def replay(trace, times, terms):
    """Return the answers to attempts at these times."""
    answers = []
    for now in times:
        answer, trace = attempt(trace, now, terms)
        answers.append(answer)
    return answers


@given(moments, terms)
@settings(deadline=None)
def test_a_first_attempt_never_passes_whatever_the_time(now, terms):
    assert attempt(None, now, terms) == (DEFERRED, Trace(now))


@given(traces, moments, terms)
@settings(deadline=None)
def test_what_is_remembered_never_lies_in_the_future(before, now, terms):
    _, after = attempt(before, now, terms)
    assert after.since <= now


@given(traces, st.lists(moments, max_size=8), st.integers(0, 2**32), terms)
@example(Trace(4e9), [], 0, Terms(300, 1000, 5000))
@settings(deadline=None)
def test_nobody_is_kept_out_once_the_clock_runs_steadily(before, jumps, steady, terms):
    # Whatever happened: a sender that retries at the delay's pace is in with the second retry from then on.
    steadily = [float(steady + terms.delay * retry) for retry in range(3)]
    answers = replay(before, [*jumps, *steadily], terms)
    assert any(answer.forgives for answer in answers[-3:])


@given(traces, st.lists(moments, min_size=1, max_size=8), terms)
@settings(deadline=None)
def test_to_pass_takes_an_attempt_at_least_a_delay_before(before, times, terms):
    trace, earlier = before, [] if before is None else [before.since]
    for now in times:
        answer, trace = attempt(trace, now, terms)
        if answer is PASSED:
            assert any(now - since >= terms.delay for since in earlier)
        if answer.forgives:
            assert earlier
        earlier.append(now)


@given(st.lists(st.floats(0, 299), min_size=1, max_size=8), moments.filter(lambda now: now < 2e9))
@settings(deadline=None)
def test_no_number_of_early_retries_gets_in(offsets, start):
    answers = replay(None, [start, *(start + offset for offset in sorted(offsets))], TERMS)
    assert answers == [DEFERRED] + [EARLY] * len(offsets)


@given(st.floats(-1e9, 1e9), st.floats(0, 5000))
@settings(deadline=None)
def test_who_is_known_stays_known_when_the_clock_is_set_back(jump, later):
    answers = replay(passed(0), [NOW + min(jump, 0), NOW + min(jump, 0) + later * 0.9], TERMS)
    assert answers == [KNOWN, KNOWN]


# --- what is taken for the same

NETWORKS = [
    # client, network
    ("192.0.2.7", "192.0.2.0/24"),
    ("192.0.2.255", "192.0.2.0/24"),
    ("0.0.0.0", "0.0.0.0/24"),
    ("255.255.255.255", "255.255.255.0/24"),
    ("2001:db8::7", "2001:db8::/64"),
    ("2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
    ("::", "::/64"),
]

SENDERS = [
    # sender, as it counts
    ("", ""),
    ("alice@example.org", "alice@example.org"),
    ("Alice@Example.ORG", "alice@example.org"),
    ("alice@example.org.", "alice@example.org"),
    ("postmaster", "postmaster"),
    ("@", "@"),
    ("alice@", "alice@"),
    ("@example.org", "@example.org"),
    ("o'hara.smith@example.org", "o'hara.smith@example.org"),
    ("owner-list@example.org", "owner-list@example.org"),
    ("alice+lists@example.org", "alice+lists@example.org"),
    ('"a@b"@example.org', '"a@b"@example.org'),
    ("deadbeef@example.org", "deadbeef@example.org"),
    ("m3@example.org", "m3@example.org"),
    ("mp3team@example.org", "mp3team@example.org"),
    ("x=y@example.org", "x=y@example.org"),
    ("alice@mx1.example.org", "alice@mx1.example.org"),
    ("alice@1234567890.example", "alice@1234567890.example"),
    # Numbers.
    ("news+1234@example.org", "news+*@example.org"),
    ("bounce-1-2-3@example.org", "bounce-*@example.org"),
    ("bob1969@example.org", "bob*@example.org"),
    ("mail2024@example.org", "mail*@example.org"),
    ("bounces20240131@example.org", "*@example.org"),
    ("1234@example.org", "*@example.org"),
    # Identifiers.
    ("bounce-5f3a@example.org", "bounce-*@example.org"),
    ("msg.5F3A9C2E1B@example.org", "msg.*@example.org"),
    ("return-q9zk3vwt0p@example.org", "return-*@example.org"),
    ("0100018f2c3a7b1e-2d7e5c1a-abcd-4bcb-9fd9-7f1f1b5f2b3a-000000@ses.example", "*@ses.example"),
    ("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee@example.org", "*@example.org"),
    # The recipient in the sender.
    ("bounce-123-alice=example.org@lists.example", "bounce-*@lists.example"),
    ("bounce+5f3ab.1234-alice=example.org@lists.example", "bounce+*@lists.example"),
    ("owner-list+alice=example.org@lists.example", "owner-list-*@lists.example"),
    ("owner-list+o'hara=mail.example.org@lists.example", "owner-list-*@lists.example"),
    # Forwarders.
    ("SRS0=aB3x=2W=example.org=alice@fwd.example", "srs0=*=*=example.org=alice@fwd.example"),
    ("SRS0+aB+x=2W=example.org=alice@fwd.example", "srs0=*=*=example.org=alice@fwd.example"),
    ("SRS0-zzzz=QQ=my-host.example=a.smith@fwd.example", "srs0=*=*=my-host.example=a.smith@fwd.example"),
    ("SRS1=aB3x=one.example==cD4y=2W=example.org=bob@two.example", "srs1=*=one.example==*=*=example.org=bob@two.example"),
    ("SRS1=aB3x=one.example=+cD4y=2W=example.org=bob@two.example", "srs1=*=one.example==*=*=example.org=bob@two.example"),
    ("bounces+SRS=44ldt=IX@cloud.example", "bounces+srs=*=*@cloud.example"),
    ("alice+SRS=44ldt=IX=example.org=alice@cloud.example", "alice+srs=*=*=example.org=alice@cloud.example"),
    # Signatures.
    ("prvs=1234abcdef=alice@example.org", "prvs=*=alice@example.org"),
    ("btv1==0123456789==alice@example.org", "btv1=*=alice@example.org"),
    ("msprvs1=17000abc==bounces-244-1@example.org", "msprvs1=*=bounces-*@example.org"),
    # What is nobody's address.
    ("prvs=", "prvs="),
    ("SRS0=", "srs0="),
    ("-=@=", "-=@="),
    ("\udcff\x00@\udcfe", "\udcff\x00@\udcfe"),
]


@pytest.mark.parametrize(("client", "expected"), NETWORKS)
def test_a_neighbour_of_the_client_is_the_client(client, expected):
    assert network(ip_address(client)) == expected


@pytest.mark.parametrize(("sender", "folded"), SENDERS)
def test_senders_are_folded(sender, folded):
    assert fold_sender(sender) == folded


@pytest.mark.parametrize(("sender", "folded"), SENDERS)
def test_folding_is_done_with_once(sender, folded):
    assert fold_sender(folded) == folded


def test_a_triplet_folds_each_of_its_parts():
    one = triplet(ip_address("192.0.2.7"), "Bounce-1@Example.org", "Alice@Example.NET")
    assert (one.network, one.sender, one.recipient) == ("192.0.2.0/24", "bounce-*@example.org", "alice@example.net")
    assert one == triplet(ip_address("192.0.2.99"), "bounce-2@example.ORG", "alice@example.net")


DIFFERENT = [
    # what distinguishes the attempt from 192.0.2.7, alice@example.org, bob@example.net
    ("192.0.3.7", "alice@example.org", "bob@example.net"),
    ("192.0.2.7", "alicia@example.org", "bob@example.net"),
    ("192.0.2.7", "alice@example.com", "bob@example.net"),
    ("192.0.2.7", "", "bob@example.net"),
    ("192.0.2.7", "alice@example.org", "bobby@example.net"),
    ("192.0.2.7", "alice@example.org", "bob+1@example.net"),
    ("192.0.2.7", "alice@example.org", ""),
    ("2001:db8::7", "alice@example.org", "bob@example.net"),
]


@pytest.mark.parametrize("other", DIFFERENT)
def test_who_differs_is_remembered_apart(other):
    client, sender, recipient = other
    assert triplet(ip_address(client), sender, recipient) != triplet(
        ip_address("192.0.2.7"), "alice@example.org", "bob@example.net"
    )


@given(st.one_of(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)), st.data())
@settings(deadline=None)
def test_a_network_is_all_of_its_clients_and_no_others(client, data):
    host_bits = 8 if client.version == 4 else 64
    neighbour = type(client)(int(client) >> host_bits << host_bits | data.draw(st.integers(0, 2**host_bits - 1)))
    stranger = type(client)(int(client) ^ 1 << host_bits)
    assert network(neighbour) == network(client)
    assert network(stranger) != network(client)


names = st.text(string.ascii_lowercase, min_size=1, max_size=8)
domains = st.builds("{}.example".format, names)
tags = st.text(string.ascii_letters + string.digits + "+/", min_size=1, max_size=10)
numbers = st.integers(0, 10**12)
identifiers = st.uuids().map(str) | st.integers(2**40, 2**200).map("0{:x}".format)

FORMS = [
    "SRS0={tag}={tag}={other}={name}@{domain}",
    "SRS1={tag}={other}=={tag}={tag}={other}={name}@{domain}",
    "{name}+SRS={tag}={tag}={other}={name}@{domain}",
    "prvs={tag}={name}@{domain}",
    "btv1=={tag}=={name}@{domain}",
    "bounce-{number}-{name}={other}@{domain}",
    "{name}+{number}@{domain}",
    "{name}-{number}-{number}@{domain}",
    "{name}.{identifier}@{domain}",
    "{identifier}-{number}@{domain}",
]


@pytest.mark.parametrize("form", FORMS)
@given(st.data(), names, domains, domains)
@settings(deadline=None, max_examples=50)
def test_the_next_message_of_a_sender_is_from_the_same(form, data, name, other, domain):
    def written():
        for kind, drawn in (("tag", tags), ("number", numbers), ("identifier", identifiers)):
            values[kind] = data.draw(drawn)
        return form.format(name=name, other=other, domain=domain, **values)

    values = {}
    assert fold_sender(written()) == fold_sender(written())


@given(names, names, domains, domains)
@settings(deadline=None)
def test_people_stay_who_they_are(one, two, here, there):
    assert (fold_sender(f"{one}@{here}") == fold_sender(f"{two}@{there}")) == (one == two and here == there)
    signed = fold_sender(f"prvs=1234abcdef={one}@{here}"), fold_sender(f"prvs=1234abcdef={two}@{there}")
    assert (signed[0] == signed[1]) == (one == two and here == there)


@given(st.text(st.characters(codec=None), max_size=60))
@settings(deadline=None)
def test_any_text_can_be_a_sender(text):
    assert fold_sender(text) == fold_sender(text)
    assert bool(fold_sender(text)) or not text.strip(".")


@pytest.mark.parametrize("piece", ["a", "1", "-", "=", "+", "a=", "-a=b.c", "+srs=", "srs0=", "a.", "*", "*-", "1a-", "\udcff", '"', "@"])
def test_folding_takes_no_longer_for_what_is_made_to_take_long(piece):
    # A hundred thousand characters: quadratic work would take minutes here, and the ring's time is up before.
    assert len(fold_sender(piece * (100_000 // len(piece)) + "@example.org")) <= 100_100
