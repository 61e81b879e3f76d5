"""The catalog that is shipped is complete and careful; a faulty one is refused with its place."""

import re
from collections import Counter
from pathlib import Path

import pytest

from dnsbl_policy import catalog as module
from dnsbl_policy.catalog import Catalog, Expect, Kind, KnownCode, KnownList, Scope, State, Terms, parse
from dnsbl_policy.codes import parse_pattern

DEFER = 600
TEXT = Path(module.__file__).with_name("catalog.toml").read_text("utf-8")
SHIPPED = parse(TEXT)


def weights(known: KnownList) -> list[int]:
    """Return every weight that one answer of the list could add."""
    return [code.weight for code in known.codes] if known.weight is None else [known.weight]


def number(address: str) -> int:
    """Turn a return code into the integer that patterns take."""
    return int.from_bytes(bytes(map(int, address.split("."))))


def score(zone: str, *answers: str) -> int:
    """Return what the catalog makes of a list's answers, in hundredths."""
    known = SHIPPED.known(zone)
    assert known is not None
    rules = [(code.weight, parse_pattern(code.match)) for code in known.codes]
    return sum(weight for weight, pattern in rules if any(pattern.matches(number(answer)) for answer in answers))


each_list = pytest.mark.parametrize("known", SHIPPED.lists, ids=lambda known: known.name)
each_grave = pytest.mark.parametrize("grave", SHIPPED.dead, ids=lambda grave: grave.zone)


# --- what is shipped


def test_enough_is_known():
    assert sum(known.scope is not Scope.NAME for known in SHIPPED.lists) >= 25
    assert len(SHIPPED.dead) >= 25
    assert sum(grave.dangerous for grave in SHIPPED.dead) >= 10


def test_nothing_is_there_twice():
    names = Counter(known.name for known in SHIPPED.lists)
    zones = Counter(known.zone for known in SHIPPED.lists) + Counter(grave.zone for grave in SHIPPED.dead)
    assert [name for name, count in names.items() if count > 1] == []
    assert [zone for zone, count in zones.items() if count > 1] == []


@each_list
def test_a_list_is_complete(known):
    assert known.source
    assert known.url.count("{") == known.url.count("{client}")
    assert known.checked == "2026-11"
    labels = [code.label for code in known.codes]
    assert len(set(labels)) == len(labels)
    for meaning in [code.meaning for code in known.codes] or [known.meaning]:
        assert meaning[0].isupper() or meaning[0].isdigit()
        assert meaning.endswith(".")
        assert len(meaning) <= 80


@each_list
def test_every_pattern_is_well_formed_and_never_meets_an_error_code(known):
    for code in known.codes:
        pattern = parse_pattern(code.match)
        assert not pattern.matches(number("127.0.0.255")) or code.match.startswith("&")
        assert code.weight != 0


@each_list
def test_no_list_reaches_a_deferral_by_itself(known):
    assert max(weights(known)) < DEFER
    if known.name != "zen":  # several lists with grounds of their own
        assert sum(weight for weight in weights(known) if weight > 0) < DEFER
    assert sum(weight for weight in weights(known) if weight < 0) > -DEFER


@each_list
def test_what_is_far_from_the_sender_or_in_doubt_weighs_little(known):
    if known.scope in (Scope.NET24, Scope.ASN):
        assert max(weights(known)) <= 150
    if known.state is State.DOUBTFUL:
        assert sum(weight for weight in weights(known) if weight > 0) <= 200


@each_list
def test_weights_agree_with_the_kind(known):
    signs = {weight > 0 for weight in weights(known)}
    expected = {Kind.BLOCK: {True}, Kind.ALLOW: {False}, Kind.MIXED: {True, False}, Kind.SCORE: {True, False}}
    assert signs == expected[known.kind]


@each_list
def test_a_list_of_names_is_asked_about_no_address(known):
    assert (known.ipv4 or known.ipv6) == (known.scope is not Scope.NAME)


@each_list
def test_a_test_entry_that_differs_is_a_return_code(known):
    if known.expect.listed not in (None, "none"):
        assert known.expect.listed.startswith("127.")


@each_grave
def test_an_obituary_is_complete(grave):
    assert grave.what
    assert grave.source
    assert any(character.isdigit() for character in grave.when)
    assert not grave.what.endswith(".")


@each_grave
def test_no_zone_is_dead_and_usable(grave):
    assert SHIPPED.known(grave.zone) is None
    assert not any(known.zone.endswith(f".{grave.zone}") for known in SHIPPED.lists)


@pytest.mark.parametrize(
    ("zone", "answers", "expected"),
    [
        ("zen.spamhaus.org", ["127.0.0.2"], 350),
        ("zen.spamhaus.org", ["127.0.0.2", "127.0.0.9"], 450),
        ("zen.spamhaus.org", ["127.0.0.3"], 350),
        ("zen.spamhaus.org", ["127.0.0.4"], 350),
        ("zen.spamhaus.org", ["127.0.0.11"], 200),
        ("zen.spamhaus.org", ["127.0.0.4", "127.0.0.10"], 550),
        ("zen.spamhaus.org", ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.9", "127.0.0.10"], 1350),
        ("zen.spamhaus.org", ["127.0.0.8"], 0),
        ("zen.spamhaus.org", ["127.255.255.254"], 0),
        ("list.dnswl.org", ["127.0.5.0"], 0),
        ("list.dnswl.org", ["127.0.5.1"], -150),
        ("list.dnswl.org", ["127.0.20.3"], -400),
        ("list.dnswl.org", ["127.0.10.3"], 0),
        ("list.dnswl.org", ["127.0.0.255"], 0),
        ("rep.mailspike.net", ["127.0.0.10"], 250),
        ("rep.mailspike.net", ["127.0.0.15"], 0),
        ("rep.mailspike.net", ["127.0.0.20"], -200),
        ("score.senderscore.com", ["127.0.4.0"], 250),
        ("score.senderscore.com", ["127.0.4.80"], 0),
        ("score.senderscore.com", ["127.0.4.100"], -100),
        ("score.senderscore.com", ["127.255.255.255"], 0),
        ("dnsbl.dronebl.org", ["127.0.0.1"], 0),
        ("hostkarma.junkemailfilter.com", ["127.0.0.3"], 0),
        ("multi.surbl.org", ["127.0.0.80"], 250),
    ],
)
def test_answers_weigh_what_they_should(zone, answers, expected):
    assert score(zone, *answers) == expected


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("zen.spamhaus.org", Expect()),
        ("xbl.spamhaus.org", Expect(listed="127.0.0.4")),
        ("list.dnswl.org", Expect(listed="127.0.10.0")),
        ("bl.suomispam.net", Expect(listed="127.0.0.99")),
        ("hostkarma.junkemailfilter.com", Expect(listed="127.0.0.2", clear="127.128.0.0/9")),
    ],
)
def test_exceptions_to_the_test_entries(zone, expected):
    known = SHIPPED.known(zone)
    assert known is not None
    assert known.expect == expected


# --- looking up


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("zen.spamhaus.org", "zen"),
        ("ZEN.Spamhaus.ORG", "zen"),
        ("zen.spamhaus.org.", "zen"),
        ("sh4rph0rses.zen.dq.spamhaus.net", "zen"),
        ("Sh4rpH0rses.ZEN.dq.spamhaus.net.", "zen"),
        ("{key}.zen.dq.spamhaus.net", "zen"),
        ("a-key.combined.mail.abusix.zone", "abusix"),
        ("combined.mail.abusix.zone", "abusix"),
        ("zen.dq.spamhaus.net", None),
        (".zen.dq.spamhaus.net", None),
        ("two.labels.zen.dq.spamhaus.net", None),
        ("zen.dq.spamhaus.net.example.org", None),
        ("sub.zen.spamhaus.org", None),
        ("spamhaus.org", None),
        ("bl.example.net", None),
        ("", None),
    ],
)
def test_known_zones(zone, name):
    known = SHIPPED.known(zone)
    assert (known.name if known else None) == name


@pytest.mark.parametrize(
    ("zone", "grave"),
    [
        ("dnsbl.sorbs.net", "dnsbl.sorbs.net"),
        ("spam.dnsbl.sorbs.net", "dnsbl.sorbs.net"),
        ("l1.spews.DNSBL.sorbs.net.", "dnsbl.sorbs.net"),
        ("notdnsbl.sorbs.net", None),
        ("list.dsbl.org", "dsbl.org"),
        ("unconfirmed.dsbl.org", "dsbl.org"),
        ("multihop.dsbl.org", "dsbl.org"),
        ("psbl.org", None),
        ("relays.ordb.org", "relays.ordb.org"),
        ("rbl.maps.vix.com", "maps.vix.com"),
        ("blackholes.mail-abuse.org", "mail-abuse.org"),
        ("rbl-plus.mail-abuse.org", "mail-abuse.org"),
        ("relays.osirusoft.com", "relays.osirusoft.com"),
        ("spews.relays.osirusoft.com", "relays.osirusoft.com"),
        ("dnsbl.njabl.org", "njabl.org"),
        ("korea.blackholes.us", "blackholes.us"),
        ("zen.spamhaus.org", None),
        ("org", None),
        ("", None),
    ],
)
def test_dead_zones(zone, grave):
    found = SHIPPED.dead_zone(zone)
    assert (found.zone if found else None) == grave


def test_the_nearest_dead_zone_speaks():
    text = "".join(f'[[dead]]\nzone = "{zone}"\nwhat = "x"\nwhen = "2001"\nsource = "y"\n' for zone in ("a.b", "c.a.b"))
    found = parse(text).dead_zone("d.c.a.b")
    assert found is not None
    assert found.zone == "c.a.b"


# --- reading

LIST = """
[[list]]
name = "one"
zone = "bl.example.net"
codes = [{ match = "127.0.0.2", weight = 4.35, label = "bad", meaning = "Bad." }]
scope = "ip"
kind = "block"
terms = "free"
url = "https://example.net/{client}"
state = "alive"
checked = "2026-11"
source = "test"
"""
DEAD = """
[[dead]]
zone = "dead.example.net"
what = "closed"
when = "2001"
source = "test"
"""


def test_what_is_written_is_what_is_read():
    assert parse(LIST).lists == (
        KnownList(
            name="one",
            zone="bl.example.net",
            scope=Scope.IP,
            kind=Kind.BLOCK,
            terms=Terms.FREE,
            state=State.ALIVE,
            url="https://example.net/{client}",
            checked="2026-11",
            source="test",
            codes=(KnownCode("127.0.0.2", 435, "bad", "Bad."),),
        ),
    )
    assert parse("") == Catalog()


@pytest.mark.parametrize(
    ("points", "expected"), [("4.35", 435), ("0.29", 29), ("-1.5", -150), ("2", 200), ("1e1", 1000)]
)
def test_weights_are_read_exactly(points, expected):
    known = parse(LIST.replace("4.35", points)).lists[0]
    assert known.codes[0].weight == expected


def test_one_weight_for_any_answer():
    known = parse(LIST.replace(LIST.splitlines()[4], 'weight = 1.5\nmeaning = "Any."')).lists[0]
    assert (known.codes, known.weight, known.meaning) == ((), 150, "Any.")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "one"\n', "", "[[list]] number 1: name: is missing; expected lower-case letters"),
        ('name = "one"', "name = 1", "[[list]] number 1: name: expected lower-case letters"),
        ('name = "one"', 'name = "One!"', "[[list]] One!: name: expected lower-case letters"),
        ("bl.example.net", "bl..net", "[[list]] one: zone: has an empty label"),
        ("bl.example.net", "BL.example.net", "[[list]] one: zone: expected lower case"),
        ("4.35", "4.355", "[[list]] one: codes bad: weight: expected at most two decimals"),
        ("4.35", '"4.35"', "[[list]] one: codes bad: weight: expected a number of points such as 2.5"),
        ("4.35", "true", "[[list]] one: codes bad: weight: expected a number of points such as 2.5"),
        ("4.35", "nan", "[[list]] one: codes bad: weight: expected"),
        ("4.35", "inf", "[[list]] one: codes bad: weight: expected"),
        ("127.0.0.2", "127.0.0.[2;", "[[list]] one: codes bad: match: '127.0.0.[2;', character 12:"),
        ('"bad"', '"very bad"', "[[list]] one: codes very bad: label: expected letters"),
        (', meaning = "Bad."', "", "[[list]] one: codes bad: meaning: is missing; expected text"),
        (', meaning = "Bad."', ', meaning = " "', "[[list]] one: codes bad: meaning: expected text"),
        ("meaning =", "color = 1, meaning =", "[[list]] one: codes bad: color: unknown key"),
        ("codes = [", "weight = 2\ncodes = [", "[[list]] one: codes: expected either codes or one weight"),
        ("codes = [{", "codes = [3, {", "[[list]] one: codes: expected an array of tables"),
        (
            'scope = "ip"',
            'scope = "city"',
            "[[list]] one: scope: 'city': expected one of ip, net24, asn, dynamic, name",
        ),
        ('scope = "ip"', 'scope = "name"\nipv4 = true', "[[list]] one: scope: a list of names takes no addresses"),
        ('scope = "ip"', 'scope = "ip"\nipv4 = false', "[[list]] one: ipv4: expected ipv4 or ipv6"),
        ('scope = "ip"', 'scope = "ip"\nipv6 = "yes"', "[[list]] one: ipv6: expected true or false"),
        ('kind = "block"', 'kind = "deny"', "[[list]] one: kind: 'deny': expected one of block, allow, mixed, score"),
        ('terms = "free"', 'terms = "gold"', "[[list]] one: terms: 'gold': expected one of free, volume,"),
        ('"alive"', '"dead"', "[[list]] one: state: 'dead': expected one of alive, doubtful"),
        ("https:", "ftp:", "[[list]] one: url: expected an address that begins with https://"),
        ("2026-11", "2026-13", "[[list]] one: checked: expected a month such as 2026-11"),
        ('source = "test"', 'source = "test"\nnote = 1', "[[list]] one: note: unknown key"),
        ("scope", 'expect = "none"\nscope', "[[list]] one: expect: expected a table"),
        ("scope", 'expect = { listed = "9.9.9.9" }\nscope', "[[list]] one: expect: listed: expected a code such as"),
        ("scope", 'expect = { clear = "127.1" }\nscope', "[[list]] one: expect: clear: expected a network such as"),
        ("scope", 'expect = { sane = "none" }\nscope', "[[list]] one: expect: sane: unknown key"),
        ("scope", 'aliases = ["{key}..net"]\nscope', "[[list]] one: aliases: {key}..net: has an empty label"),
        ("scope", "aliases = [1]\nscope", "[[list]] one: aliases: 1: expected text"),
        ("scope", 'aliases = ["BL.net"]\nscope', "[[list]] one: aliases: BL.net: expected lower case"),
        ('what = "closed"\n', "", "[[dead]] dead.example.net: what: is missing; expected text"),
        ('when = "2001"', "when = 2001", "[[dead]] dead.example.net: when: expected text"),
        (
            'when = "2001"',
            'when = "2001"\ndangerous = 1',
            "[[dead]] dead.example.net: dangerous: expected true or false",
        ),
        ("dead.example.net", "bl.example.net", "[[list]] one: zone: bl.example.net is also under [[dead]]"),
        ("dead.example.net", "example.net", "[[list]] one: zone: bl.example.net is also under [[dead]] example.net"),
        ("[[dead]]", "[[deed]]", "catalog: deed: unknown key"),
        ("[[dead]]", "[[dead]", "catalog: Expected"),
        ("[[dead]]", "[dead]", "catalog: dead: expected an array of tables"),
    ],
)
def test_a_fault_is_told_with_its_entry(old, new, message):
    text = LIST + DEAD
    assert old in text
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LIST + LIST, "[[list]] one: name: is used twice"),
        (LIST + LIST.replace('"one"', '"two"'), "[[list]] one: zone: bl.example.net belongs to another list too"),
        (
            LIST
            + LIST.replace('"one"', '"two"').replace('"bl.example.net"', '"x.net"\naliases = ["{key}.example.net"]'),
            "[[list]] one: zone: bl.example.net belongs to another list too",
        ),
        (DEAD + DEAD, "[[dead]] dead.example.net: zone: is there twice"),
    ],
)
def test_entries_must_not_clash(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(text)
