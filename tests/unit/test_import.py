"""From a .mc file to a configuration: what is carried over, changed or left, and that the result is always accepted."""

import itertools
import tomllib

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_milter.access import read_access, read_relay_domains
from dnsbl_milter.asked import asked
from dnsbl_milter.cli import main
from dnsbl_milter.configuration import catalog, parse
from dnsbl_milter.importing import Source, import_sendmail
from dnsbl_milter.mc import features
from dnsbl_milter.translation import DEFER
from dnsbl_policy.actions import Action
from dnsbl_policy.answers import Clear, Listed
from dnsbl_policy.lists import parse_client

RECIPE = """\
FEATURE(dnsbl, `bl.spamcop.net', `Refused - see http://spamcop.net/bl.shtml? $&{client_addr}')dnl
FEATURE(dnsbl, `unconfirmed.dsbl.org', `Refused - see http://unconfirmed.dsbl.org/')dnl
FEATURE(dnsbl, `relays.ordb.org', `Refused - see http://ordb.org/')dnl
"""


def one(text):
    (feature,) = features(text)
    return asked(feature)


def imported(text, **options):
    result = import_sendmail("old.mc", features(text), **options)
    assert result is not None
    return result


def document(text, **options):
    return tomllib.loads(imported(text, **options).configuration)


def report(text, **options):
    return [str(remark) for remark in imported(text, **options).report]


def code(text):
    return int.from_bytes(bytes(map(int, text.split("."))))


# --- what a line asked

ACTIONS = [
    ("FEATURE(`dnsbl', `a.example')", Action.REJECT),
    ("FEATURE(`dnsbl', `a.example', `\"550 5.7.1 Refused: \" $&{client_addr}')", Action.REJECT),
    ("FEATURE(`dnsbl', `a.example', `Refused')", Action.REJECT),
    ("FEATURE(`dnsbl', `a.example', `400 lists have you')", Action.DEFER),
    ("FEATURE(`dnsbl', `a.example', `\"451 4.7.1 Later\"')", Action.DEFER),
    ("FEATURE(`enhdnsbl', `a.example', `\"421 Later\"', `t')", Action.DEFER),
    ("FEATURE(`dnsbl', `a.example', `4 lists have you')", Action.REJECT),
    ("FEATURE(`dnsbl', `a.example', `quarantine')", Action.QUARANTINE),
    ("FEATURE(`enhdnsbl', `a.example', `quarantine', `t')", Action.QUARANTINE),
    ("FEATURE(`dnsbl', `a.example', `discard')", Action.DISCARD),
    ("FEATURE(`rbl', `a.example', `discard')", Action.REJECT),
]


@pytest.mark.parametrize(("text", "action"), ACTIONS)
def test_what_it_did_is_read_from_its_message(text, action):
    assert one(text).action is action


CODES = [
    # arguments behind the temporary failure, patterns
    ("", ()),
    (", `'", ()),
    (", `127.0.0.2'", ("127.0.0.2",)),
    (", `127.0.0.2.'", ("127.0.0.2",)),
    (", `127.0.0.2.', `127.0.0.4', `127.0.0.10.'", ("127.0.0.[2;4;10]",)),
    (", `127.0.0.10', `127.0.0.2', `127.0.0.2.'", ("127.0.0.[2;10]",)),
    (", `127.0.0.2.', `127.0.1.2.'", ("127.0.0.2", "127.0.1.2")),
    (", `127.0.0.$-.'", ("127.0.0.[0..255]",)),
    (", `127.0.$-.2'", ("127.0.[0..255].2",)),
    (", `127.0.0.2', `127.0.0.$-'", ("127.0.0.[0..255]",)),
    (", `127.0.$+.'", ("127.0.[0..255].[0..255]",)),
    (", `$+'", ()),
    (", `$-.$-.$-.$-.'", ()),
    (", `127.0.0.02'", ("127.0.0.2",)),
    (", `', `127.0.0.2'", ()),  # no fourth argument: any, whatever follows
    (", `127.0.0.2', `nonsense'", ("127.0.0.2",)),
    (", `127.0.0.2', `192.0.2.1.'", ("127.0.0.2",)),
    (", `127.0.0.2', `127.255.255.254'", ("127.0.0.2",)),
]


@pytest.mark.parametrize(("arguments", "patterns"), CODES)
def test_codes_become_patterns(arguments, patterns):
    line = one(f"FEATURE(`enhdnsbl', `a.example', , `t'{arguments})")
    assert (line.codes, line.refused) == (patterns, "")


@pytest.mark.parametrize("written", ["nonsense", "192.0.2.1.", "127.255.255.254", "127.0.0.256", "127.0.0", "127.0.0.2.2.2", "127.0.0.[4..7]", "$={bad}"])
def test_a_line_whose_codes_are_no_listing_is_left(written):
    assert "acts on no answer that is a listing" in one(f"FEATURE(`enhdnsbl', `a.example', , , `{written}')").refused


def test_enhdnsbl_reads_six_codes_and_dnsbl_none():
    many = ", ".join(f"`127.0.0.{number}'" for number in range(2, 10))
    line = one(f"FEATURE(`enhdnsbl', `a.example', , , {many})")
    assert line.codes == ("127.0.0.[2;3;4;5;6;7]",)
    assert any("from the seventh on" in lost for lost in line.lost)
    line = one(f"FEATURE(`dnsbl', `a.example', , , {many})")
    assert line.codes == ()
    assert any("never read them" in lost for lost in line.lost)


LEFT = [
    # line, what is told of it
    ("FEATURE(dnsbl, `relays.ordb.org')", "dead (2008-03-25): "),
    ("FEATURE(dnsbl, `unconfirmed.dsbl.org')", "dead (2012-08-20): "),
    ("FEATURE(dnsbl, `relays.osirusoft.com')", "dead (2003-08): "),
    ("FEATURE(dnsbl, `rbl.maps.vix.com')", "dead (about 2000): "),
    ("FEATURE(dnsbl, `RELAYS.ORDB.ORG.')", "dead (2008-03-25): "),
    ("FEATURE(rbl)", "no zone is named, which meant this one; dead (about 2000): "),
    ("FEATURE(dnsbl)", "no zone is named, which meant this one; dead (2001): "),
    ("ifdef(`X', `FEATURE(dnsbl, `bl.spamcop.net')')", "only m4 knows"),
    ("FEATURE(dnsbl, `localhost')", "not the name of a zone: "),
    ("FEATURE(dnsbl, `a b.example')", "not the name of a zone: "),
    ("FEATURE(dnsbl, `dbl.spamhaus.org')", "lists names and takes no addresses"),
    ("FEATURE(dnsbl, `secret.dbl.dq.spamhaus.net')", "{key}.dbl.dq.spamhaus.net lists names"),
]


@pytest.mark.parametrize(("text", "why"), LEFT, ids=[row[0] for row in LEFT])
def test_what_cannot_be_asked_is_left_and_named(text, why):
    result = imported(f"\n{text}")
    assert result.lists == 0
    (line,) = [str(remark) for remark in result.report if str(remark).startswith("old.mc:2: ")]
    assert line.startswith("old.mc:2: left: FEATURE(")
    assert why in line
    assert "secret" not in line
    parse(result.configuration, "new.toml")


def test_a_dangerous_zone_is_called_so():
    assert "listed every address" in one("FEATURE(dnsbl, `relays.osirusoft.com')").refused
    assert "dangerous" in one("FEATURE(dnsbl, `relays.osirusoft.com')").refused


# --- the configuration


def test_the_recipe_weighs():
    made = document(RECIPE)
    assert made["actions"] == {"tag": 3}
    assert made["list"] == [{"name": "spamcop", "zone": "bl.spamcop.net"}]
    assert "old.mc:1: changed: FEATURE(dnsbl) bl.spamcop.net: rejected by itself; adds at most 3.5 now" in report(RECIPE)[0]


def test_the_recipe_is_as_strict_as_it_was():
    made = document(RECIPE, strict=True)
    assert made["actions"] == {"reject": 10}
    assert made["list"] == [{"name": "spamcop", "zone": "bl.spamcop.net", "weight": 10, "ipv4": True, "ipv6": False}]
    assert made["allow"] == {"networks": [], "hosts": [], "recipients": [], "authenticated": False}
    assert "memory" not in made


def test_a_deferral_that_did_not_forgive_does_not():
    assert document("FEATURE(`dnsbl', `a.example', `451 later')", strict=True)["memory"] == {"url": ""}


def test_a_zone_is_asked_once():
    text = (
        "FEATURE(`enhdnsbl', `a.example', `quarantine', , `127.0.0.3')\n"
        "FEATURE(`enhdnsbl', `A.example.', , , `127.0.0.2')\n"
        "FEATURE(`dnsbl', `a.example')\nFEATURE(`dnsbl', `a.example', `discard')\n"
    )
    made = document(text, strict=True)
    assert made["actions"] == {"quarantine": 1, "reject": 2}
    assert made["list"] == [{
        "zone": "a.example", "weight": 2, "ipv4": True, "ipv6": False,
        "codes": [{"match": "127.0.0.3", "weight": 1}, {"match": "127.0.0.2", "weight": 2}],
    }]  # fmt: skip
    told = report(text, strict=True)
    assert any(line.startswith("old.mc:2: changed: ") and "one list with line 1" in line for line in told)
    assert any(line.startswith("old.mc:4: left: ") and "line 3 asks the same zone" in line for line in told)
    assert document(text)["list"] == [{"zone": "a.example", "weight": 3}]


def test_one_witness_is_not_heard_twice():
    zen = "FEATURE(`dnsbl', `zen.spamhaus.org')\nFEATURE(`dnsbl', `secret.zen.dq.spamhaus.net')\n"
    assert [each["zone"] for each in document(zen)["list"]] == ["zen.spamhaus.org"]
    assert [each["name"] for each in document(zen, strict=True)["list"]] == ["zen", "zen-2"]
    family = "FEATURE(`dnsbl', `zen.spamhaus.org')\nFEATURE(`dnsbl', `sbl.spamhaus.org')\nFEATURE(`dnsbl', `a.example')\n"
    made = document(family)
    assert [each.get("group") for each in made["list"]] == ["spamhaus.org", "spamhaus.org", None]
    assert made["groups"] == {"spamhaus.org": {"cap": 6.5}} or made["groups"]["spamhaus.org"]["cap"] < DEFER / 100


def test_a_key_is_in_the_configuration_and_nowhere_else():
    result = imported("FEATURE(`dnsbl', `SeCrEt.zen.dq.spamhaus.net')")
    assert "secret.zen.dq.spamhaus.net" in result.configuration
    assert not any("secret" in str(remark).lower() for remark in result.report)
    assert any("its key stands in the configuration" in str(remark) for remark in result.report)


def test_several_codes_of_one_list_stay_one_list():
    made = document("FEATURE(`enhdnsbl', `a.example', , , `127.0.0.2', `127.0.1.2', `127.0.2.2')")
    assert made["groups"] == {"a.example": {"cap": 3}}
    assert made["actions"] == {"tag": 3}


def test_there_may_be_nothing_to_import():
    assert import_sendmail("old.mc", features("MAILER(`smtp')\nFEATURE(`access_db')")) is None


@pytest.mark.parametrize("text", ["FEATURE(`rhsbl', `a.example')\nFEATURE(dnsbl, `b.example')", "FEATURE(`dnsblaccess')\nFEATURE(dnsbl, `b.example')"])
def test_what_is_no_list_of_addresses_is_left(text):
    assert report(text)[0].startswith("old.mc:1: left: FEATURE(")


def test_a_key_is_kept_where_nothing_is_imported_too():
    (line, *_) = report("FEATURE(`rhsbl', `secret.dbl.dq.spamhaus.net')\nFEATURE(dnsbl, `b.example')")
    assert line.startswith("old.mc:1: left: FEATURE(rhsbl) {key}.dbl.dq.spamhaus.net: ")


def test_what_a_list_adds_may_hang_on_a_later_line():
    text = "FEATURE(`enhdnsbl', `bl.spamcop.net', , , `127.0.0.2')\nFEATURE(`dnsbl', `bl.spamcop.net')"
    assert "adds at most 3.5 now" in report(text)[0]


def test_what_a_line_loses_is_told():
    told = report("FEATURE(`dnsbl', `a.example', `\"550 no\"', `t')")
    assert any("left: FEATURE(dnsbl) a.example: its message" in line for line in told)
    assert any("left: FEATURE(dnsbl) a.example: its temporary failure" in line for line in told)


def test_a_milder_line_before_a_harder_one_is_told():
    mild, hard = "FEATURE(dnsbl, `a.example', `quarantine')\n", "FEATURE(dnsbl, `b.example')\n"
    assert any("who is listed here and in line 1 is rejected now" in line for line in report(mild + hard, strict=True))
    assert not any("is listed here" in line for line in report(hard + mild, strict=True))


def test_quarantine_that_was_only_logged_is_told():
    held = "FEATURE(dnsbl, `a.example', `quarantine')\n"
    assert any(": quarantine: the mail is held now" in line for line in report(held, strict=True))
    assert not any(": quarantine: " in line for line in report("FEATURE(delay_checks)\n" + held, strict=True))


def test_clients_that_could_log_in_still_may():
    text = "FEATURE(delay_checks)\nFEATURE(dnsbl, `a.example')"
    assert "authenticated" not in document(text, strict=True)["allow"]


# --- exemptions

ACCESS = [
    # line, what it becomes
    ("Connect:192.168.0\tRELAY", ("192.168.0.0/24",)),
    ("Connect:192.168 OK", ("192.168.0.0/16",)),
    ("10 RELAY", ("10.0.0.0/8",)),
    ("192.168.7.9\tOK", ("192.168.7.9",)),
    ("connect:192.168.7.9\tok", ("192.168.7.9",)),
    ("Connect:IPv6:2001:db8:1\tRELAY", ("2001:db8:1::/48",)),
    ("IPv6:2001:db8:0:0:0:0:0:7 OK", ("2001:db8::7",)),
    ("Connect:IPv6:2001:db8::7 OK", ("2001:db8::7",)),
    ("Connect:10.1.0.0/16 OK", ("10.1.0.0/16",)),
    ("Connect:Mail.Friend.example OK", ("mail.friend.example", ".mail.friend.example")),
    ("friend.example RELAY", ("friend.example", ".friend.example")),
    (".friend.example OK", (".friend.example",)),
    ("Connect:127.0.0.1 RELAY", ()),
    ("Connect:127 RELAY", ()),
    ("localhost.localdomain RELAY", ()),
    ("Connect:IPv6:::1 RELAY", ()),
    ("Connect:300.1 OK", ()),
    ("Connect:com OK", ()),
    ("Connect:192.168.0.7 SKIP", ()),
    ("Connect:bad.example REJECT", None),
    ("From:friend.example OK", None),
    ("To:backup.example RELAY", None),
    ("friend@friend.example OK", None),
    ("Spam:abuse@ FRIEND", ("abuse@",)),
    ("Spam:list@acme123.com FRIEND", ("list@acme123.com",)),
    ("Spam:acme123.com FRIEND", ("@acme123.com",)),
    ("To:abuse@ SPAMFRIEND", ("abuse@",)),
    ("Spam:café@ FRIEND", ()),
    ("# Connect:192.168.0 RELAY", None),
    ("", None),
    ("Connect:192.168.0", None),
]


@pytest.mark.parametrize(("line", "kept"), ACCESS)
def test_access_entries_become_exemptions(line, kept):
    entries = list(read_access(f"\n{line}\n", friends=True))
    assert [entry.kept for entry in entries] == ([] if kept is None else [kept])
    assert all(entry.line == 2 for entry in entries)
    assert all(entry.kept or entry.why for entry in entries)


def test_friends_count_only_where_they_did():
    (entry,) = read_access("Spam:abuse@ FRIEND", friends=False)
    assert (entry.kept, entry.why) == ((), "the .mc has no FEATURE(`delay_checks', `friend'), so it spared nobody")


def test_relay_domains_become_exemptions():
    entries = list(read_relay_domains("# no\nearthlink.net\n192.168.0 # inside\nIPv6:2001:db8:1\nlocal\n"))
    assert [(entry.line, entry.kept) for entry in entries] == [
        (2, ("earthlink.net", ".earthlink.net")),
        (3, ("192.168.0.0/24",)),
        (4, ("2001:db8:1::/48",)),
        (5, ()),
    ]


def test_exemptions_travel():
    access = Source("access", tuple(read_access("Connect:192.168.0 RELAY\nfriend.example OK\nSpam:abuse@ FRIEND\n", friends=True)))
    relay = Source("relay-domains", tuple(read_relay_domains("192.168.0\n10.1\n")))
    made = document(RECIPE, access=access, relay_domains=relay)["allow"]
    assert made == {
        "networks": ["192.168.0.0/24", "10.1.0.0/16"],
        "hosts": ["friend.example", ".friend.example"],
        "recipients": ["postmaster@", "abuse@"],
    }
    told = report(RECIPE, access=access, relay_domains=relay)
    assert "access:1: carried over: Connect:192.168.0 RELAY: exempt: 192.168.0.0/24" in told
    assert "relay-domains:2: carried over: 10.1: exempt: 10.1.0.0/16" in told
    assert not any("NOT carried over" in line for line in told)


def test_exemptions_that_do_not_travel_are_told():
    told = [line for line in report(RECIPE) if "NOT carried over" in line]
    assert [line.split(":")[0] for line in told] == ["access", "relay-domains"]
    assert "does not spare it from a milter" in told[0]
    assert "--access FILE" in told[0]


def test_what_may_not_be_as_it_was_is_told():
    access, relay = Source("access", tuple(read_access("friend.example OK", friends=False))), Source("relay", tuple(read_relay_domains("10.1")))
    assert any("no FEATURE(access_db)" in line for line in report(RECIPE, access=access))
    assert not any("no FEATURE(access_db)" in line for line in report("FEATURE(access_db)" + RECIPE, access=access))
    assert any("HATER" in line for line in report("FEATURE(delay_checks, hater)" + RECIPE, access=access))
    assert any("judged these clients too" in line for line in report(RECIPE, relay_domains=relay, strict=True))


# --- all that may come

ZONES = ["a.example", "b.example", "c.d.example", "bl.spamcop.net", "zen.spamhaus.org", "sbl.spamhaus.org", "list.dnswl.org",
         "key1.zen.dq.spamhaus.net", "key2.new.dq.spamhaus.net", "key3.new.dq.spamhaus.net", "relays.ordb.org", "dbl.spamhaus.org",
         "bl.blocklist.de", "dnsbl-1.uceprotect.net", "dnsbl-2.uceprotect.net", "localhost", "-.-", "_a.example", "x" * 63 + ".example", "key4." + "x" * 60 + ".dq.spamhaus.net"]  # fmt: skip


def written(name, zone, message, failure, codes):
    quoted = [f"`{each}'" for each in (zone, message, failure, *codes)]
    return f"FEATURE({', '.join([name, *quoted])})"


LINES = st.builds(
    written,
    st.sampled_from(["dnsbl", "enhdnsbl", "enhdnsbl", "rbl", "rhsbl", "delay_checks"]),
    st.sampled_from(ZONES),
    st.sampled_from(["", '"550 no"', "451 later", "quarantine", "discard"]),
    st.sampled_from(["", "t"]),
    st.lists(st.sampled_from(["127.0.0.2", "127.0.0.4.", "127.0.1.2", "127.0.0.$-.", "$+", "nonsense", "127.255.255.1"]), max_size=7),
)
FILES = st.lists(LINES, max_size=12).map(lambda lines: "FEATURE(dnsbl, `a.example')\n" * (not lines) + "\n".join(lines))
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["", "Connect:", "Spam:", "To:"]), st.text(alphabet='0127.:/aef-_@%\\"é', max_size=12), st.sampled_from(["OK", "FRIEND"]))
).map(lambda entries: "\n".join(f"{tag}{key}\t{value}" for tag, key, value in entries))


@settings(max_examples=200, deadline=None)
@given(FILES, st.booleans(), ENTRIES)
def test_whatever_is_imported_is_accepted(text, strict, entries):
    access = Source("access", tuple(read_access(entries, friends=True)))
    relay = Source("relay", tuple(read_relay_domains(entries)))
    result = import_sendmail("old.mc", features(text), access=access, relay_domains=relay, strict=strict)
    if result is not None:
        made = parse(result.configuration, "new.toml")
        assert len(made.policy.lists) == result.lists
        assert all(remark.why for remark in result.report)


@settings(max_examples=100, deadline=None)
@given(FILES)
def test_gently_no_list_alone_delays(text):
    result = import_sendmail("old.mc", features(text))
    if result is None:
        return
    policy = parse(result.configuration, "new.toml").policy
    client = parse_client("192.0.2.1")
    panel = policy.panel(4)
    for place, answered in itertools.product(range(len(panel.lists)), ([2], [2, 4], [2, 3, 4, 10], [code("127.0.1.2")])):
        codes = tuple(each if each > 255 else code(f"127.0.0.{each}") for each in answered)
        evidence = [Listed(codes, 60) if place == index else Clear(60) for index in range(len(panel.lists))]
        assert panel.judge(client, evidence).action <= Action.TAG


@settings(max_examples=100, deadline=None)
@given(FILES, st.data())
def test_strictly_the_hardest_line_decides(text, data):
    result = import_sendmail("old.mc", features(text), strict=True)
    if result is None:
        return
    policy = parse(result.configuration, "new.toml").policy
    panel = policy.panel(4)
    listed = data.draw(st.lists(st.sampled_from(["127.0.0.2", "127.0.0.4", "127.0.0.9", "127.0.1.2", ""]), min_size=len(panel.lists), max_size=len(panel.lists)))
    evidence = [Listed((code(each),), 60) if each else Clear(60) for each in listed]
    answers = dict(zip((one.zone for one in panel.lists), listed, strict=True))
    wanted = Action.ACCEPT
    seen_whole = set()
    for feature in features(text):
        if feature.name not in ("dnsbl", "enhdnsbl", "rbl") or (line := asked(feature)).refused or line.zone in seen_whole:
            continue
        answer = answers[line.zone]
        if not line.codes:
            seen_whole.add(line.zone)
        if answer and (not line.codes or any(matches(pattern, answer) for pattern in line.codes)):
            wanted = max(wanted, line.action)
    assert panel.judge(parse_client("192.0.2.1"), evidence).action is wanted
    assert panel.lists == () or not policy.panel(6).lists


def matches(pattern, answer):
    """Match the two patterns that come of the codes above, by other means than the policy's."""
    octets = pattern.replace("[0..255]", "*").replace("[", "").replace("]", "").split(".")
    return all(want == "*" or got in want.split(";") for want, got in zip(octets, answer.split("."), strict=True))


def test_too_many_lists_are_refused_and_not_miscounted():
    actions = ['"451 later"', "quarantine", '"550 no"', "discard"]
    few = "".join(f"FEATURE(dnsbl, `l{number}.example', `{actions[number % 4]}')\n" for number in range(40))
    assert max(document(few, strict=True)["actions"].values()) <= 1000
    parse(imported(few, strict=True).configuration, "new.toml")
    with pytest.raises(ValueError, match="too many lists with different actions"):
        imported("".join(f"FEATURE(dnsbl, `l{number}.example', `{actions[number % 4]}')\n" for number in range(400)), strict=True)


def test_no_list_of_the_catalog_delays_alone():
    for known in catalog().lists:
        result = imported(f"FEATURE(dnsbl, `{known.zone}')")
        parse(result.configuration, "new.toml")


# --- the command


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "trinityos.mc"
    path.write_text(RECIPE)
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["import", "sendmail", *map(str, arguments)])


def test_the_configuration_goes_to_stdout_and_the_report_beside_it(old):
    done = run(old)
    assert done.exit_code == 0
    assert tomllib.loads(done.stdout)["actions"] == {"tag": 3}
    assert f"{old}:3: left: FEATURE(dnsbl) relays.ordb.org: dead (2008-03-25)" in done.stderr
    assert done.stderr.endswith("lists: 1\n")


def test_with_an_output_the_report_goes_to_stdout(old, tmp_path):
    new = tmp_path / "new.toml"
    done = run(old, "--output", new, "--strict")
    assert (done.exit_code, done.stderr) == (0, "")
    assert tomllib.loads(new.read_text())["actions"] == {"reject": 10}
    assert done.stdout.endswith(f"lists: 1, in {new}\n")


def test_nothing_is_overwritten(old, tmp_path):
    new = tmp_path / "new.toml"
    new.write_text("precious")
    done = run(old, "--output", new)
    assert done.exit_code == 2
    assert f"{new}: exists, and is not overwritten" in done.stderr
    assert new.read_text() == "precious"


def test_exemptions_are_read_from_files(old, tmp_path):
    access, relay = tmp_path / "access", tmp_path / "relay-domains"
    access.write_text("Connect:friend.example OK\nSpam:abuse@ FRIEND\n")
    relay.write_text("192.168.0\n")
    old.write_text("FEATURE(`delay_checks', `friend', `n')dnl\nFEATURE(`access_db')dnl\n" + RECIPE)
    done = run(old, "--access", access, "--relay-domains", relay, "--strict")
    assert tomllib.loads(done.stdout)["allow"] == {
        "networks": ["192.168.0.0/24"],
        "hosts": ["friend.example", ".friend.example"],
        "recipients": ["abuse@"],
    }


WRONG = [
    # what is given, what is said, status
    ("MAILER(`smtp')", "nothing to import", 1),
    ("FEATURE(`dnsbl', `a.example", "line 1: the quote that opens here is never closed", 2),
    ("\0\x01", "is not text; give the source of a map", 2),
    ("##### made by m4\nV10/Berkeley\n", "is a .cf; give the .mc", 2),
]


@pytest.mark.parametrize(("text", "said", "status"), WRONG, ids=[row[1] for row in WRONG])
def test_what_is_wrong_is_told(old, text, said, status):
    old.write_text(text)
    done = run(old)
    assert done.exit_code == status
    assert f"{old}: " in done.stderr
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [("{}/none.mc",), ("{}/trinityos.mc", "--access", "{}/none"), ("{}/trinityos.mc", "--output", "{}/none/new.toml")])
def test_files_that_are_not_there_are_told(old, tmp_path, arguments):
    done = run(*(argument.format(tmp_path) for argument in arguments))
    assert done.exit_code == 2
    assert "No such file or directory" in done.stderr


def test_a_map_that_makemap_made_is_refused(old, tmp_path):
    made = tmp_path / "access.db"
    made.write_bytes(b"\0\0\0\0hash")
    assert "is not text" in run(old, "--access", made).stderr
