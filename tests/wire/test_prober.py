"""The prober on a daemon that runs: what it asks, what it finds out, and that workers obey."""

import contextlib
import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from faulty import NXDOMAIN, SERVFAIL, SILENCE, Reply, clear, failure, listed
from museum import BAD, GUILTY, INNOCENTS, TAGGED, TEST_ENTRIES, Museum, entries, healthy, until

from dnsbl_milter import metrics
from dnsbl_milter.configuration import parse
from dnsbl_milter.nameserver import parse_nameserver
from dnsbl_milter.prober import Prober
from dnsbl_milter.standing import Standing
from dnsbl_policy.shares import ENOUGH_CLIENTS

ZONE = "bad.example"
SIX = "2001:db8::66"


def asked(house, zone, client=None):
    return [each for each in house.server.questions if each.zone == zone and (client is None or each.client == client)]


def probes(house, zone):
    """Return the addresses that a zone was probed with, in IPv4 and then in IPv6."""
    found = [each.client for each in asked(house, zone) if each.kind == "A"]
    four = [client for client in found if client.startswith("127.")]
    return four, [client for client in found if client.startswith("::ffff:")]


def test_a_round_is_a_handful_of_questions(tmp_path):
    with Museum(tmp_path) as house:
        house.wait_for_rounds(3)
        four, six = probes(house, ZONE)
        assert set(four[:3]) == {"127.0.0.1", "127.0.0.2", *[each for each in four[:3] if int(each.split(".")[1]) > 127]}
        rounds = four.count("127.0.0.2")
        assert len(four) + len(six) <= 6 * (rounds + 1)
        fresh = [client for client in four if client not in ("127.0.0.1", "127.0.0.2")]
        assert len(set(fresh)) == len(fresh) >= 3
        assert all(int(client.split(".")[1]) >= 128 for client in fresh)
        assert set(TEST_ENTRIES[1:]) <= set(six)
        assert len({each.name for each in asked(house, "") if each.name.endswith(".invalid")}) >= 3


def test_rounds_are_spread_over_the_interval(tmp_path):
    with Museum(tmp_path, health="") as house:
        house.wait_for_rounds(4)
        firsts = [[each.arrived for each in asked(house, zone, "127.0.0.2")] for zone in ("one.example", "two.example")]
        gaps = [later - earlier for times in firsts for earlier, later in pairwise(times)]
        assert all(0.5 < gap < 2.5 for gap in gaps), gaps


def test_a_suspended_list_is_not_asked_by_any_worker(tmp_path):
    with Museum(tmp_path, workers=3) as house:
        house.server.zones[ZONE] = listed("127.0.0.2")
        house.wait_for(BAD, "suspended")
        house.server.forget()
        for client in INNOCENTS[:30]:
            assert house.told(client) == "accept"
        assert {each.zone for each in house.server.questions if each.client in INNOCENTS} == {"one.example", "two.example", "friend.example"}
        assert "bad:suspended" in house.decision(INNOCENTS[0])["unknown"]
        assert sum(house.metrics("dnsbl_list_state").values()) == 8
        assert house.metrics("dnsbl_list_state")['{family="ipv4",list="bad",state="suspended"}'] == 1
        assert house.health()[1]["lists"]["bad ipv4"] == "suspended"


def test_a_transition_is_one_line_with_the_reason_that_the_list_gives(tmp_path):
    with Museum(tmp_path) as house:
        house.wait_for_rounds(1)
        house.server.zones[ZONE] = listed("127.0.0.2", text="This list is closed,\\010 see https://bad.example/")
        event = house.wait_for(BAD, "suspended")
        assert (event["from"], event["family"], event["why"], event["level"]) == ("ok", "ipv4", "lists-the-world", "warning")
        assert event["says"] == "This list is closed,? see https://bad.example/"


@pytest.mark.parametrize("broken", [SILENCE, failure(SERVFAIL), Reply(raw=b"\0\0nonsense")], ids=["silent", "failing", "junk"])
def test_no_reason_is_no_matter(broken, tmp_path):
    with Museum(tmp_path) as house:
        house.wait_for_rounds(1)
        house.server.handler = lambda question: broken if question.kind == "TXT" else listed("127.0.0.2") if question.zone == ZONE else None
        assert house.wait_for(BAD, "suspended")["says"] == ""


def test_a_key_is_in_no_line(tmp_path):
    key = tmp_path / "key"
    key.write_text("s3cr3tk3y\n")
    keyed = f'[[list]]\nname = "keyed"\nzone = "{{key}}.keyed.example"\nkey_file = "{key}"\nweight = 3\n'
    with Museum(tmp_path, more=keyed) as house:
        house.server.zones["s3cr3tk3y.keyed.example"] = listed("127.255.255.254", text="S3cr3tK3Y.keyed.example: invalid key")
        assert house.wait_for("keyed", "suspended")["says"] == "***.keyed.example: invalid key"
        house.told(TAGGED)
        assert not any("s3cr3tk3y" in line.lower() for line in house.daemon.log())


def test_a_list_answers_for_ipv6_clients_once_its_test_entry_has(tmp_path):
    zone = entries("127.0.0.2", GUILTY, families=TEST_ENTRIES[:1]) | {SIX: listed("127.0.0.2")}
    with Museum(tmp_path, zones={ZONE: zone, "one.example": listed("127.0.0.2")}) as house:
        house.wait_for_rounds(2)
        assert house.told(SIX) == "accept"
        assert asked(house, ZONE, SIX) == []
        house.server.zones[ZONE] |= {TEST_ENTRIES[1]: listed("127.0.0.2")}
        until(lambda: any(event["list"] == BAD for event in house.events("list answers")), "the list is found to answer")
        assert house.told(SIX) == 550
        # What lists the world does not answer for a family; it lists the world.
        assert not any(event["list"] == "one" for event in house.events("list answers"))


def test_a_family_is_judged_for_itself(tmp_path):
    with Museum(tmp_path) as house:
        house.wait_for_rounds(1)
        house.server.handler = lambda question: listed("127.0.0.2") if question.zone == ZONE and ":" in question.client else None
        house.wait_for(BAD, "suspended", family="ipv6")
        house.wait_for_rounds(2)
        assert house.moves(BAD, "ipv4") == []
        assert house.told(GUILTY) == 550
        assert house.told(SIX) == "accept"
        assert "bad:suspended" in house.decision(SIX)["unknown"]


def test_what_a_list_said_while_it_was_mad_is_not_believed_when_it_is_back(tmp_path):
    """It only tags, so nobody asked it for proof; its word lies in the cache for an hour."""
    with Museum(tmp_path, bad="weight = 4", cache="min_ttl = 3600") as house:
        house.wait_for_rounds(1)
        house.server.zones[ZONE] = listed("127.0.0.2")
        house.told(INNOCENTS[0])
        assert house.decision(INNOCENTS[0])["enforced"] == "tag"
        house.wait_for(BAD, "suspended")
        house.server.zones[ZONE] = healthy()[ZONE]
        house.wait_for(BAD, "ok")
        house.told(INNOCENTS[0])
        assert house.decision(INNOCENTS[0])["enforced"] == "accept"
        assert "bad" not in house.decision(INNOCENTS[0])["unknown"]


def test_states_outlast_a_reload_and_the_monitor(tmp_path):
    with Museum(tmp_path, more='[[list]]\nname = "extra"\nzone = "extra.example"\nweight = 1\n') as house:
        house.server.zones |= {ZONE: listed("127.0.0.2"), "extra.example": entries()}
        house.wait_for(BAD, "suspended")
        del house.server.zones["extra.example"]
        house.reconfigure(more="", workers=2)
        assert house.told(INNOCENTS[0]) == "accept"
        assert "bad:suspended" in house.decision(INNOCENTS[0])["unknown"]
        assert house.moves() == ["suspended"]
        until(lambda: len(monitors(house)) == 1, "the old monitor has gone")
        os.kill(monitors(house)[0], signal.SIGKILL)
        house.daemon.wait_for_log("monitor died")
        house.wait_for_rounds(2)
        assert house.told(INNOCENTS[1]) == "accept"
        assert "bad:suspended" in house.decision(INNOCENTS[1])["unknown"]
        assert house.moves() == ["suspended"]
        house.server.zones[ZONE] = healthy()[ZONE]
        house.wait_for(BAD, "ok")


def monitors(house):
    """Return the processes with as many threads as only those that probe have."""
    found = []
    for pid in house.daemon.workers():
        with contextlib.suppress(FileNotFoundError):
            found += [pid] * (len(list(Path(f"/proc/{pid}/task").iterdir())) > 6)
    return found


def test_lists_are_watched_without_a_page_for_metrics_too(tmp_path):
    with Museum(tmp_path, web=False) as house:
        house.server.zones[ZONE] = listed("127.0.0.2")
        house.wait_for(BAD, "suspended")


def test_who_turns_it_off_is_not_watched(tmp_path):
    with Museum(tmp_path, health="enabled = false") as house:
        house.server.zones[ZONE] = listed("127.0.0.2")
        for client in INNOCENTS[:20]:
            assert house.told(client) == "accept"
        assert not any(each.client == "127.0.0.2" for each in house.server.questions)
        assert house.metrics("dnsbl_list_state")['{family="ipv4",list="bad",state="ok"}'] == 1


def test_who_turns_it_off_by_a_reload_sets_all_lists_free(tmp_path):
    with Museum(tmp_path) as house:
        house.server.zones[ZONE] = listed("127.0.0.2")
        house.wait_for(BAD, "suspended")
        house.server.zones[ZONE] = healthy()[ZONE]
        house.reconfigure(health="enabled = false")
        assert house.told(GUILTY) == 550
        assert house.health()[1]["lists"] == {}


def test_a_failed_proof_suspends_without_waiting_for_the_round(tmp_path):
    with Museum(tmp_path, interval=3600) as house:
        # The first rounds come at once, the last list's at the end; then none for an hour.
        until(lambda: len(asked(house, "friend.example", TEST_ENTRIES[1])) == 1, "the last first round")
        house.server.zones[ZONE] = listed("127.0.0.2")
        assert house.told(INNOCENTS[0]) == "accept"
        assert house.wait_for(BAD, "suspended", 15)["why"] == "failed-proof"


@pytest.mark.parametrize(("mad", "sane"), [("ipv6", "ipv4"), ("ipv4", "ipv6")])
def test_a_failed_proof_is_held_against_the_family_that_it_failed_for(mad, sane, tmp_path):
    """One side of a list goes mad, for clients and proofs alone: its test entries stay as they are, so only proofs tell."""
    with Museum(tmp_path, interval=3600, zones={name: zone | {SIX: listed("127.0.0.2")} for name, zone in healthy().items() if name == ZONE}) as house:
        until(lambda: len(asked(house, "friend.example", TEST_ENTRIES[1])) == 1, "the last first round")
        clients = {"ipv4": (INNOCENTS[0], GUILTY), "ipv6": ("2001:db8::1", SIX)}
        with_six = mad == "ipv6"

        def one_side(question):
            fresh = question.client not in (*TEST_ENTRIES, "127.0.0.1", "::ffff:127.0.0.1")
            return listed("127.0.0.2") if question.zone == ZONE and fresh and (":" in question.client) is with_six else None

        house.server.handler = one_side
        assert house.told(clients[sane][1]) == 550
        assert house.told(clients[mad][0]) == "accept"
        assert house.wait_for(BAD, "suspended", 15, family=mad)["why"] == "failed-proof"
        assert house.told(clients[sane][1]) == 550
        assert house.moves(BAD, sane) == []
        assert house.told(clients[mad][0]) == "accept"
        assert "bad:suspended" in house.decision(clients[mad][0])["unknown"]
        assert house.metrics("dnsbl_proofs_total")['{list="bad",result="failed"}'] == 1


class Watched:
    """A prober whose clock a test turns, and whose workers' counters it writes."""

    def __init__(self, server, folder, monkeypatch, *names, interval=3600, **weights):
        self.now, self.totals, self.server = 1000.0, {}, server
        server.zones |= {f"{name}.example": entries() for name in names}
        server.zones[""] = clear()
        lists = "".join(f'[[list]]\nname = "{name}"\nzone = "{name}.example"\nweight = {weights.get(name, 4)}\n' for name in names)
        dns = f'dns = {{ nameservers = ["{server.text}"], deadline = 0.5, retry = 0.2 }}\n'
        self.configuration = parse(f"{dns}memory.url = ''\nhealth.interval = {interval}\n[actions]\ntag = 3\n{lists}", "test")
        self.standing = None
        monkeypatch.setattr(metrics, "counters", lambda _: dict(self.totals))
        self.folder, self.names = folder, names
        self.begin()

    def begin(self):
        """Watch anew, as after a reload."""
        self.standing = Standing(self.configuration.policy.lists, self.standing)
        self.prober = Prober(self.configuration, self.standing, self.folder, lambda: self.now)
        for _ in self.names:
            self.turn(1.0)

    def turn(self, seconds):
        self.now += seconds
        self.prober.turn()

    def turn_until_next_round(self, zone):
        self.server.forget()
        while not any(each.zone == zone for each in self.server.questions):
            self.turn(300.0)

    def clients(self, count, instead="listed", **others):
        """Count clients about whom every list was asked; so many of them it listed, or gave another outcome instead of "clear"."""
        for name in self.names:
            for outcome, added in ((instead, others.get(name, 0)), ("clear", count - others.get(name, 0))):
                key = ("lookups_total", (name, outcome))
                self.totals[key] = self.totals.get(key, 0.0) + added

    def states(self, version=4):
        return {name: str(self.standing.record(place, version).state) for place, name in enumerate(self.names)}


def test_a_share_that_jumps_is_noticed_long_before_the_list_s_turn(name_server, tmp_path, monkeypatch):
    watched = Watched(name_server, tmp_path, monkeypatch, "a", "b", "c")
    watched.clients(100, a=2, b=4, c=4)
    watched.turn(10)
    name_server.forget()
    watched.clients(ENOUGH_CLIENTS - 1, a=7)
    watched.turn(10)
    assert name_server.questions == ()
    watched.clients(1)
    watched.turn(10)
    assert watched.states() == {"a": "suspect", "b": "ok", "c": "ok"}
    assert watched.states(6) == watched.states()
    assert watched.standing.doubted(4) == (0,)
    assert {each.zone for each in name_server.questions} == {"a.example", ""}
    # And once only: what is known needs no further round before its turn.
    name_server.forget()
    watched.clients(30, a=10)
    watched.turn(10)
    assert name_server.questions == ()


def test_doubt_outlasts_a_reload(name_server, tmp_path, monkeypatch):
    watched = Watched(name_server, tmp_path, monkeypatch, "a", "b")
    watched.clients(100, a=2, b=4)
    watched.turn(10)
    watched.clients(30, a=10, b=1)
    watched.turn(10)
    watched.begin()
    for _ in range(4):
        watched.turn_until_next_round("a.example")
    assert watched.standing.doubted(4) == (0,)
    watched.clients(30, a=1, b=1)
    for _ in range(3):
        watched.turn_until_next_round("a.example")
    assert watched.states() == {"a": "ok", "b": "ok"}


def test_a_share_stays_in_doubt_until_it_has_been_as_usual_for_two_rounds(name_server, tmp_path, monkeypatch):
    watched = Watched(name_server, tmp_path, monkeypatch, "a", "b", "c")
    steps = [
        # clients, those that a lists, what is thought of it after the round
        (100, 2, "ok"), (40, 13, "suspect"), (0, 0, "suspect"), (5, 0, "suspect"), (40, 14, "suspect"), (40, 0, "suspect"), (40, 1, "ok"),
    ]  # fmt: skip
    seen = []
    for count, count_listed, _ in steps:
        watched.clients(count, a=count_listed, b=count // 25, c=count // 20)
        for _ in range(4):
            watched.turn(1000)
        seen.append(watched.states()["a"])
    assert seen == [state for _, _, state in steps]


@pytest.mark.parametrize(("rises", "states"), [
    ({"a": 30, "b": 20, "c": 25}, ["ok", "ok", "ok"]),
    ({"a": 30, "b": 3, "c": 3}, ["suspect", "ok", "ok"]),
], ids=["a wave of spam", "one list by itself"])  # fmt: skip
def test_lists_are_compared_with_each_other(rises, states, name_server, tmp_path, monkeypatch):
    watched = Watched(name_server, tmp_path, monkeypatch, "a", "b", "c")
    watched.clients(100, a=20, b=10, c=10)
    watched.turn(10)
    watched.clients(40, **rises)
    watched.turn(10)
    assert list(watched.states().values()) == states


@pytest.mark.parametrize("outcome", ["timeout", "servfail", "refused", "blocked", "invalid"])
def test_a_list_that_answers_probes_and_no_client(outcome, name_server, tmp_path, monkeypatch):
    watched = Watched(name_server, tmp_path, monkeypatch, "a", "b")
    states = []
    for failed in (27, 26, 0, 28, 30, 29, 0, 0, 0, 0):
        watched.clients(30, outcome, a=failed)
        watched.turn_until_next_round("a.example")
        states.append(watched.states()["a"])
    # Nine of ten is deaf; one such round, or one that is nearly so, means nothing.
    assert states == ["ok", "ok", "ok", "ok", "suspect", "suspended", "probation", "probation", "probation", "ok"]
    assert watched.states()["b"] == "ok"


def test_what_speaks_for_senders_is_no_measure_of_a_wave_of_spam(name_server, tmp_path, monkeypatch):
    """The only other list is an allow-list, on which no spammer is: nothing can be told."""
    watched = Watched(name_server, tmp_path, monkeypatch, "a", "friend", friend=-4)
    watched.clients(100, a=20, friend=10)
    watched.turn(10)
    watched.clients(40, a=36, friend=1)
    watched.turn(10)
    assert watched.states() == {"a": "ok", "friend": "ok"}


def test_what_clients_were_told_by_a_list_that_was_mad_is_not_held_against_it_later(name_server, tmp_path, monkeypatch):
    watched = Watched(name_server, tmp_path, monkeypatch, "a", "b", "c")
    watched.clients(100, a=2, b=4, c=4)
    watched.turn(10)
    name_server.zones["a.example"] = listed("127.0.0.2")
    watched.turn_until_next_round("a.example")
    assert watched.states()["a"] == "suspended"
    usual = watched.standing.baseline(0)
    # A session that outlasts the suspension, and then some.
    watched.clients(30, a=30, b=1, c=1)
    watched.turn(10)
    assert watched.standing.baseline(0) == usual
    name_server.zones["a.example"] = entries()
    states = []
    for _ in range(6):
        watched.turn_until_next_round("a.example")
        states.append(watched.states()["a"])
    assert states == ["probation", "probation", "probation", "ok", "ok", "ok"]


def test_the_text_of_a_name_is_read(name_server):
    name_server.zones["bl.example"] = listed("127.0.0.2", text="one reason")
    server = parse_nameserver(name_server.text)
    assert server.ask_text("2.0.0.127.bl.example.", 1.0) == "one reason"
    name_server.zones["bl.example"] = clear()
    assert server.ask_text("2.0.0.127.bl.example.", 1.0) == ""
    name_server.zones["bl.example"] = SILENCE
    assert server.ask_text("2.0.0.127.bl.example.", 0.1) == ""


def test_how_a_nameserver_answers_is_read(name_server):
    server = parse_nameserver(name_server.text)
    name_server.zones[""] = clear()
    spoken = server.ask("none.invalid.", "A", 1.0)
    assert (spoken.rcode, spoken.answered, spoken.authentic, spoken.signed) == (NXDOMAIN, False, False, [])
    assert server.ask("none.invalid.", "A", 1.0, tcp=True).rcode == NXDOMAIN
    name_server.zones[""] = SILENCE
    assert server.ask("none.invalid.", "A", 0.1) is None
