"""`lists` and `catalog`: what the commands show, of lists that are well and of lists that are not."""

import json

import pytest
from faulty import SERVFAIL, SILENCE, clear, failure, listed
from museum import GUILTY, TEST_ENTRIES, entries

from mailhost.daemon import command

PARKED = "203.0.113.80"


@pytest.fixture
def configured(tmp_path, name_server, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    file = tmp_path / "dnsbl-milter.toml"
    name_server.zones |= {"one.example": entries("127.0.0.2", GUILTY), "two.example": entries(families=["127.0.0.2"]), "": clear()}

    def write(more=""):
        file.write_text(
            f'dns = {{ nameservers = ["{name_server.text}"], deadline = 1.5, retry = 0.5 }}\nactions.tag = 3\nmemory.url = ""\n'
            '[[list]]\nname = "one"\nzone = "one.example"\nweight = 4\n'
            f'[[list]]\nname = "two"\nzone = "two.example"\nweight = 4\n{more}'
        )
        return file

    return write


def lists(file):
    done = command("lists", "--config", file, "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    return done.returncode, document, {row["name"]: row for row in document["lists"]}


def test_where_all_is_well(configured):
    status, document, rows = lists(configured())
    assert (status, document["resolver"]) == (0, None)
    assert {name: row["state"] for name, row in rows.items()} == {"one": "ok", "two": "ok"}
    # The second says nothing about IPv6, and so is not asked there.
    assert rows["one"]["states"] == {"ipv4": "ok", "ipv6": "ok"}
    assert rows["two"]["states"] == {"ipv4": "ok"}
    answers = [(each["role"], each["address"], each["answer"], each["codes"]) for each in rows["two"]["probes"]]
    assert answers[:2] == [("listed", "127.0.0.2", "listed", ["127.0.0.2"]), ("clear", "127.0.0.1", "clear", [])]
    assert (answers[2][0], answers[2][2]) == ("random", "clear")
    assert all(each["milliseconds"] >= 0 for each in rows["one"]["probes"])
    assert rows["one"]["milliseconds"] >= 0


ILL = [
    # what the list answers, the state, the symptom
    (listed("127.0.0.2", text="closed"), "suspended", "lists-the-world", "closed"),
    (listed(PARKED), "suspended", "foreign-answer", ""),
    (listed("127.255.255.254", text="not you"), "suspect", "refuses", "not you"),
    (clear(), "suspect", "emptied", ""),
    (listed("127.0.0.9"), "suspended", "lists-the-world", ""),
    (SILENCE, "suspect", "silent", ""),
    (failure(SERVFAIL), "suspect", "silent", ""),
]


@pytest.mark.parametrize(("answers", "state", "symptom", "says"), ILL, ids=[f"{row[2]}-{number}" for number, row in enumerate(ILL)])
def test_a_list_that_is_ill(configured, name_server, answers, state, symptom, says):
    name_server.zones["two.example"] = answers
    status, document, rows = lists(configured())
    assert status == 1
    assert document["resolver"] is None
    assert (rows["one"]["state"], rows["two"]["state"]) == ("ok", state)
    assert (rows["two"]["symptom"], rows["two"]["says"]) == (symptom, says)
    assert rows["two"]["why"]


@pytest.mark.parametrize("family", ["127.0.0.2", TEST_ENTRIES[1]], ids=["ipv4", "ipv6"])
def test_a_list_whose_test_entry_has_another_code_is_told_with_the_line_that_puts_it_right(configured, name_server, family):
    expected = '[[list]]\nname = "three"\nzone = "three.example"\nweight = 4\nexpect = { listed = "127.0.0.2" }\n'
    name_server.zones["three.example"] = entries() | {family: listed("127.0.0.9", "127.0.0.11")}
    status, _, rows = lists(configured(expected))
    row = rows["three"]
    assert (status, row["state"], row["symptom"]) == (1, "suspect", "wrong-code")
    assert row["why"] == 'its test entry answers 127.0.0.9 where 127.0.0.2 is expected: if that is right, set expect = { listed = "127.0.0.9" }'
    status, _, rows = lists(configured(expected.replace('"127.0.0.2"', '"127.0.0.[2;9]"')))
    assert (status, rows["three"]["state"]) == (0, "ok")


def test_the_resolver_is_at_fault(configured, name_server):
    name_server.zones[""] = listed(PARKED)
    for zone in ("one.example", "two.example"):
        name_server.zones[zone] = listed(PARKED)
    status, document, rows = lists(configured())
    assert (status, document["resolver"]) == (1, "rewrites")
    assert {row["symptom"] for row in rows.values()} == {None}
    assert document["advice"]


def test_a_key_is_not_shown(configured, name_server, tmp_path):
    (tmp_path / "key").write_text("s3cr3t")
    name_server.zones["s3cr3t.keyed.example"] = listed("127.255.255.254", text="s3cr3t is no key of ours")
    file = configured(f'[[list]]\nname = "keyed"\nzone = "{{key}}.keyed.example"\nkey_file = "{tmp_path}/key"\nweight = 1\n')
    _, _, rows = lists(file)
    assert (rows["keyed"]["zone"], rows["keyed"]["says"]) == ("{key}.keyed.example", "*** is no key of ours")
    for arguments in ((), ("--json",)):
        assert "s3cr3t" not in command("lists", "--config", file, *arguments).stdout


def test_the_table_has_a_row_a_list_and_pauses_show(configured):
    file = configured()
    command("pause", "two", "--config", file)
    done = command("lists", "--config", file)
    head, first, second = done.stdout.splitlines()
    assert head.split()[:5] == ["list", "state", "listed", "clear", "random"]
    assert first.split()[:5] == ["one", "ok", "127.0.0.2", "clear", "clear"]
    assert second.split()[:3] == ["two", "ok", "(paused)"]
    assert [row["paused"] for row in lists(file)[1]["lists"]] == [False, True]


def test_explain_asks_about_an_ipv6_client_where_the_test_entry_answers(configured, name_server):
    six = "2001:db8::66"
    for zone in ("one.example", "two.example"):
        name_server.zones[zone][six] = listed("127.0.0.2")
    done = command("explain", six, "--config", configured(), "--json")
    states = {row["name"]: (row["state"], row["why"]) for row in json.loads(done.stdout)["lists"]}
    assert states == {"one": ("listed", None), "two": ("skipped", "not asked about IPv6 clients")}


def test_the_catalog_shows_what_is_in_use(configured):
    file = configured('[[list]]\nname = "cop"\nzone = "bl.spamcop.net"\n')
    document = json.loads(command("catalog", "--json", "--config", file).stdout)
    assert {row["used"]: row["zone"] for row in document["lists"] if row["used"]} == {"cop": "bl.spamcop.net"}


def test_the_catalog_is_shown_whole():
    document = json.loads(command("catalog", "--json").stdout)
    assert len(document["lists"]) >= 25
    assert len(document["dead"]) >= 25
    zen = next(row for row in document["lists"] if row["name"] == "zen")
    assert {"match": "127.0.0.2", "weight": 3.5, "label": "SBL"}.items() <= zen["codes"][0].items()
    assert {"zone", "scope", "terms", "state", "source", "ipv6", "url"} <= zen.keys()
    assert {row["used"] for row in document["lists"]} == {None}
    shown = command("catalog")
    assert shown.returncode == 0
    for row in (*document["lists"], *document["dead"]):
        assert row["zone"] in shown.stdout
