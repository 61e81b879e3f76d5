"""`explain` against a name server: each state of a list, each action, and what people read of it."""

import json
import time

import pytest
from click.testing import CliRunner
from faulty import REFUSED, SERVFAIL, SILENCE, NameServer, clear, failure, listed

from dnsbl_milter.cli import main

CLIENT, CLIENT6 = "198.51.100.7", "2001:db8::7"
SECRET = "topsecretkey"

HEAD = """
[dns]
nameservers = ["{server}"]
deadline = 0.4
retry = 0.2
[actions]
tag = 1
defer = 2
quarantine = 3
reject = 4
discard = 5
[allow]
networks = ["192.168.0.0/24"]
hosts = [".friend.example"]
[memory]
url = ""
"""
LIST = '[[list]]\nname = "{0}"\nzone = "{0}.example"\nweight = {1}\n'


@pytest.fixture
def server():
    with NameServer() as made:
        yield made


@pytest.fixture
def explain(tmp_path, server):
    """Run `explain` with these lists, and return its document and what it printed beside."""

    def run(lists: str, *arguments: str, head: str = HEAD, status: int = 0):
        file = tmp_path / "f.toml"
        file.write_text(head.replace("{server}", server.text) + lists)
        result = CliRunner().invoke(main, ["explain", "--config", str(file), "--json", *arguments])
        assert (result.exit_code, result.stderr) == (status, "")
        return json.loads(result.stdout)

    return run


@pytest.fixture
def read(tmp_path, server):
    """Run `explain` for people, and return its lines."""

    def run(lists: str, *arguments: str, head: str = HEAD) -> list[str]:
        file = tmp_path / "f.toml"
        file.write_text(head.replace("{server}", server.text) + lists)
        result = CliRunner().invoke(main, ["explain", "--config", str(file), *arguments])
        assert (result.exit_code, result.stderr) == (0, "")
        return [line.rstrip() for line in result.stdout.splitlines()]

    return run


def row(document: dict, name: str = "a") -> dict:
    (found,) = [each for each in document["lists"] if each["name"] == name]
    return found


STATES = [
    # what the list does, state, codes, why, ttl
    (listed("127.0.0.2", ttl=77), "listed", ["127.0.0.2"], None, 77),
    (listed("127.0.0.9", "127.0.0.2"), "listed", ["127.0.0.2", "127.0.0.9"], None, 300),
    (clear(negative_ttl=55), "clear", [], None, 55),
    (SILENCE, "unknown", [], "timeout", None),
    (failure(SERVFAIL), "unknown", [], "servfail", None),
    (failure(REFUSED), "unknown", [], "refused", None),
    (listed("127.255.255.254"), "unknown", ["127.255.255.254"], "blocked", None),
    (listed("203.0.113.1"), "unknown", ["203.0.113.1"], "invalid", None),
]


@pytest.mark.parametrize(("behaviour", "state", "codes", "why", "ttl"), STATES)
def test_each_state_of_a_list(explain, server, behaviour, state, codes, why, ttl):
    server.zones["a.example"] = {CLIENT: behaviour}
    found = row(explain(LIST.format("a", 1), CLIENT))
    assert (found["state"], found["codes"], found["why"], found["ttl"]) == (state, codes, why, ttl)
    assert found["weight"] == (1 if state == "listed" else 0)
    assert (found["milliseconds"] is None) == (why == "timeout")
    assert found["milliseconds"] is None or 0 <= found["milliseconds"] < 400


def test_lists_that_are_not_asked(explain, server):
    server.zones["a.example"] = listed()
    lists = LIST.format("a", 1) + LIST.format("off", 1) + "enabled = false\n" + LIST.format("six", 1) + "ipv4 = false\nipv6 = true\n"
    document = explain(lists, CLIENT)
    assert [each["name"] for each in document["lists"]] == ["a", "off", "six"]
    assert (row(document, "off")["state"], row(document, "off")["why"]) == ("skipped", "not enabled")
    assert (row(document, "six")["state"], row(document, "six")["why"]) == ("skipped", "not asked about IPv4 clients")
    assert {question.zone for question in server.questions} == {"a.example"}


def test_an_ipv6_client(explain, server):
    server.zones["a.example"] = {CLIENT6: listed()}
    document = explain(LIST.format("a", 4) + "ipv6 = true\n" + LIST.format("b", 4), "IPv6:2001:DB8:0:0::7")
    assert (document["client"], document["action"]) == (CLIENT6, "reject")
    assert row(document)["state"] == "listed"
    assert (row(document, "b")["state"], row(document, "b")["why"]) == ("skipped", "not asked about IPv6 clients")
    assert document["reply"] == f"550 5.7.1 Mail from {CLIENT6} is refused: listed by a"


def test_a_mapped_client_is_one_of_ipv4(explain, server):
    server.zones["a.example"] = {CLIENT: listed()}
    document = explain(LIST.format("a", 4), f"::ffff:{CLIENT}")
    assert (document["client"], document["action"]) == (CLIENT, "reject")


SCORE = [("X-DNSBL-Score", "{0} (a=+{0})"), ("X-DNSBL-Action", "{1}")]
LISTED_BY = "listed by a; see https://a.example/198.51.100.7"
ACTIONS = [
    # weight, action, reply, headers, quarantine
    (0.5, "accept", None, [], None),
    (1, "tag", None, SCORE, None),
    (2, "defer", f"451 4.7.1 Mail from {CLIENT} is deferred, please try again later: {LISTED_BY}", [], None),
    (3, "quarantine", None, SCORE, "dnsbl-milter score=3 lists=a"),
    (4, "reject", f"550 5.7.1 Mail from {CLIENT} is refused: {LISTED_BY}", [], None),
    (5, "discard", None, [], None),
]


@pytest.mark.parametrize(("weight", "action", "reply", "headers", "quarantine"), ACTIONS)
def test_each_action(explain, server, weight, action, reply, headers, quarantine):
    server.zones["a.example"] = {CLIENT: listed()}
    document = explain(LIST.format("a", weight) + "url = 'https://a.example/{client}'\n", CLIENT)
    assert (document["action"], document["asked"], document["reply"], document["quarantine"]) == (action, action, reply, quarantine)
    assert document["headers"] == {name: value.format(f"{weight:g}", action) for name, value in headers}
    assert (document["score"], document["low"], document["high"], document["settled"]) == (weight, weight, weight, True)
    assert document["decisive"] == ([] if action == "accept" else ["a"])
    assert document["exempt"] is None
    assert document["enforced"] is True


@pytest.mark.parametrize(("add", "given"), [("always", True), ("tagged", False), ("never", False)])
def test_headers_of_a_clean_client(explain, server, add, given):
    server.zones["a.example"] = {}
    document = explain(LIST.format("a", 1), CLIENT, head=f'{HEAD}[headers]\nadd = "{add}"\n')
    assert document["headers"] == ({"X-DNSBL-Score": "0", "X-DNSBL-Action": "accept"} if given else {})


@pytest.mark.parametrize(("weight", "action"), [(1, "tag"), (2, "defer"), (3, "quarantine"), (4, "reject"), (5, "discard")])
def test_in_observe_mode_a_client_meets_nothing(explain, server, weight, action):
    server.zones["a.example"] = {CLIENT: listed()}
    document = explain(LIST.format("a", weight), CLIENT, head=HEAD.replace("[actions]", "[actions]\nmode = 'observe'"))
    assert (document["action"], document["enforced"]) == (action, False)
    assert (document["reply"], document["headers"], document["quarantine"]) == (None, {}, None)


def test_a_list_on_observation_adds_nothing(explain, server):
    server.zones["a.example"] = server.zones["b.example"] = {CLIENT: listed()}
    document = explain(LIST.format("a", 1) + LIST.format("b", 4) + "observe = true\n", CLIENT)
    assert (document["score"], document["action"]) == (1, "tag")
    assert (row(document, "b")["observe"], row(document, "b")["state"], row(document, "b")["weight"]) == (True, "listed", 4)
    assert row(document)["observe"] is False


def test_labels_and_several_rules(explain, server):
    server.zones["a.example"] = {CLIENT: listed("127.0.0.2", "127.0.0.4", "127.0.0.10")}
    codes = (
        'codes = [{ match = "127.0.0.2", weight = 1.25, label = "SBL" }, { match = "127.0.0.[4..7]", weight = 0.5 },'
        ' { match = "127.0.0.3", weight = 9, label = "no" }, { match = "127.0.0.10", weight = -0.25, label = "good" }]\n'
    )
    document = explain(LIST.format("a", 1).replace("weight = 1\n", codes), CLIENT)
    found = row(document)
    assert (found["labels"], found["weight"], document["score"]) == (["SBL", "good"], 1.5, 1.5)
    assert document["headers"]["X-DNSBL-Score"] == "1.5 (a=SBL:+1.25 a=+0.5 a=good:-0.25)"


EXEMPT = [
    # arguments, why
    (["127.0.0.1"], "local"),
    (["::1"], "local"),
    (["192.168.0.7"], "network"),
    ([CLIENT, "--host", "mx.friend.example"], "host"),
    ([CLIENT, "--recipient", "postmaster@acme123.com"], "recipient"),
]


@pytest.mark.parametrize(("arguments", "why"), EXEMPT)
def test_an_exemption_is_shown_with_what_the_lists_say_all_the_same(explain, server, arguments, why):
    server.zones["a.example"] = listed()
    document = explain(LIST.format("a", 4) + "ipv6 = true\nexpect = { clear = 'none' }\n", *arguments)
    assert (document["exempt"], document["action"], document["score"]) == (why, "accept", 4)
    assert (document["reply"], document["headers"], document["decisive"]) == (None, {}, [])
    assert row(document)["state"] == "listed"


@pytest.mark.parametrize("arguments", [["127.0.0.2"], [CLIENT, "--host", "friend.example"], [CLIENT, "--recipient", "a@acme123.com"]])
def test_no_exemption(explain, server, arguments):
    server.zones["a.example"] = {arguments[0]: listed()}
    document = explain(LIST.format("a", 4), *arguments)
    assert (document["exempt"], document["action"]) == (None, "reject")


def test_silence_softens(explain, server):
    server.zones |= {"a.example": {CLIENT: listed()}, "friend.example": SILENCE}
    document = explain(LIST.format("a", 4) + LIST.format("friend", -2), CLIENT)
    assert (document["asked"], document["action"]) == ("reject", "defer")
    assert (document["score"], document["low"], document["high"]) == (4, 2, 4)
    assert document["reply"].startswith("451 4.7.1 ")


def test_every_list_is_waited_for_however_certain_the_action(explain, server):
    server.zones |= {"a.example": {CLIENT: listed()}, "b.example": {CLIENT: listed(delay=0.15)}}
    document = explain(LIST.format("a", 5) + LIST.format("b", 5), CLIENT)
    assert row(document, "b")["state"] == "listed"
    assert row(document, "b")["milliseconds"] >= 150
    assert document["score"] == 10


def test_a_list_that_lists_the_world_is_not_believed(explain, server):
    server.zones |= {"a.example": listed(), "b.example": {CLIENT: listed()}}
    document = explain(LIST.format("a", 4) + LIST.format("b", 1), CLIENT)
    assert (row(document)["proof"], document["action"]) == ("failed", "tag")


def test_a_key_is_shown_nowhere(explain, read, server, tmp_path):
    server.zones |= {f"{SECRET}.zen.dq.spamhaus.net": {CLIENT: listed()}, f"{SECRET}.a.example": SILENCE}
    (tmp_path / "key").write_text(SECRET)
    lists = f"[[list]]\nzone = '{SECRET}.zen.dq.spamhaus.net'\n[[list]]\nzone = '{{key}}.a.example'\nweight = 5\nkey_file = '{tmp_path}/key'\n"
    document = explain(lists, CLIENT)
    assert [(each["name"], each["zone"], each["state"]) for each in document["lists"]] == [
        ("zen", "{key}.zen.dq.spamhaus.net", "listed"),
        ("a.example", "{key}.a.example", "unknown"),
    ]
    assert SECRET not in json.dumps(document)
    assert SECRET not in "\n".join(read(lists, CLIENT))


def test_what_the_caller_says_is_in_the_document(explain, server):
    server.zones["a.example"] = {}
    document = explain(
        LIST.format("a", 1), CLIENT, "--host", "mx.example", "--helo", "helo.example", "--sender", "a@b", "--recipient", "c@d"
    )
    assert (document["host"], document["helo"], document["sender"], document["recipient"]) == ("mx.example", "helo.example", "a@b", "c@d")
    assert document["configuration"].endswith("/f.toml")


def test_the_contracts_keys_are_there(explain, server):
    server.zones["a.example"] = {}
    document = explain(LIST.format("a", 1), CLIENT)
    assert {"client", "action", "score", "low", "high", "settled", "exempt", "lists", "reply", "headers"} <= set(document)
    wanted = {"name", "state", "codes", "labels", "weight", "ttl", "why", "milliseconds"}
    assert all(wanted <= set(each) for each in document["lists"])


def test_without_any_list(explain):
    document = explain("", CLIENT)
    assert (document["lists"], document["action"], document["score"]) == ([], "accept", 0)


def test_nobody_answers_at_all(explain, server):
    server.stop()
    begin = time.monotonic()
    document = explain(LIST.format("a", 4) + LIST.format("b", 4), CLIENT)
    assert [each["why"] for each in document["lists"]] == ["timeout", "timeout"]
    assert document["action"] == "accept"
    assert time.monotonic() - begin < 5


# --- for people


def test_what_people_read(read, server):
    server.zones |= {"a.example": {CLIENT: listed("127.0.0.4", ttl=77)}, "b.example": SILENCE}
    codes = 'codes = [{ match = "127.0.0.4", weight = 4, label = "XBL" }]\nurl = "https://a.example/{client}"\n'
    lists = LIST.format("a", 1).replace("weight = 1\n", codes) + LIST.format("b", 1) + LIST.format("off", 1) + "enabled = false\n"
    lines = read(lists, CLIENT, "--helo", "helo.example", "--sender", "a@b", "--recipient", "c@d", "--host", "mx.example")
    words = [line.split() for line in lines]
    assert words[:5] == [["client", CLIENT], ["host", "mx.example"], ["helo", "helo.example"], ["sender", "a@b"], ["recipient", "c@d"]]
    assert words[5] == ["list", "state", "codes", "meaning", "weight", "ttl", "ms", "proof", "why"]
    assert words[6][:6] == ["a", "listed", "127.0.0.4", "XBL", "+4", "77"]
    assert words[6][7:] == ["sane"]
    assert words[7] == ["b", "unknown", "timeout"]
    assert words[8] == ["off", "skipped", "not", "enabled"]
    assert lines[9:] == [
        "score     4, between 4 and 5",
        "exempt    no",
        "action    reject",
        "decisive  a",
        f"reply     550 5.7.1 Mail from {CLIENT} is refused: listed by a; see https://a.example/{CLIENT}",
    ]


def test_people_read_of_a_quarantine(read, server):
    server.zones["a.example"] = {CLIENT: listed()}
    assert read(LIST.format("a", 3), CLIENT)[3:] == [
        "score     3, between 3 and 3",
        "exempt    no",
        "action    quarantine",
        "decisive  a",
        "header    X-DNSBL-Score: 3 (a=+3)",
        "header    X-DNSBL-Action: quarantine",
        "queue     dnsbl-milter score=3 lists=a",
    ]


def test_people_read_of_softening_exemption_and_observation(read, server):
    server.zones |= {"a.example": {CLIENT: listed()}, "friend.example": SILENCE}
    lists = LIST.format("a", 4) + LIST.format("friend", -2)
    assert "action    defer, softened from reject" in read(lists, CLIENT)
    assert "exempt    host" in read(lists, CLIENT, "--host", "mx.friend.example")
    observing = HEAD.replace("[actions]", "[actions]\nmode = 'observe'")
    assert "action    reject (observe mode: nothing is done)" in read(LIST.format("a", 4), CLIENT, head=observing)
    observed = read(LIST.format("a", 4) + "observe = true\n", CLIENT)
    assert observed[2].split()[:3] == ["a", "listed", "(observed)"]


def test_long_lines_stay_whole_where_no_terminal_is(read, server):
    names = [f"{number:02}{'n' * 50}" for number in range(12)]
    for name in names:
        server.zones[f"{name}.example"] = {CLIENT: listed()}
    lines = read("".join(LIST.format(name, 1) for name in names), CLIENT, head=HEAD.replace("discard = 5\n", ""))
    (reply,) = [line for line in lines if line.startswith("reply ")]
    assert all(name in reply for name in names)
    assert [line.split()[0] for line in lines[2:14]] == names
