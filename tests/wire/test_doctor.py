"""`doctor`: each fault produced for real, found by its own check, and named with its fix."""

import json
import os
import pwd
import socket
import stat
import time
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest
from faulty import REFUSED, SERVFAIL, SILENCE, NameServer, Reply, clear, failure, listed
from museum import entries

from dnsbl_milter import nameserver_checks
from dnsbl_milter.cf import Filter, read_cf
from dnsbl_milter.cli import main
from dnsbl_milter.configuration import parse
from dnsbl_milter.diagnosis import CHECKS, diagnose
from dnsbl_milter.nameserver_checks import PUBLIC
from mailhost.daemon import command

CF = """\
V10/Berkeley
O RunAsUser={user}
O InputMailFilters={active}
O Milter.macros.connect=j, _, {{daemon_name}}, {{if_name}}, {{if_addr}}
O Milter.macros.envfrom={macros}
Xdnsbl-milter, S={socket}{rest}
Xother, S=local:/run/other.sock, F=T, T=C:1m
"""
NOBODY = "nobody"
PARKED = "203.0.113.80"


def signed(question, *, authentic=True, since=-3600, until=3600):
    """Answer about the root as a nameserver that validates does, with a signature of that time."""
    asked = dns.message.from_wire(question.packet)
    reply = dns.message.make_response(asked, recursion_available=True)
    if authentic:
        reply.flags |= dns.flags.AD
    now = int(time.time())
    times = " ".join(time.strftime("%Y%m%d%H%M%S", time.gmtime(now + offset)) for offset in (until, since))
    reply.answer.append(dns.rrset.from_text(".", 60, "IN", "SOA", "a.root. host. 1 600 300 86400 60"))
    reply.answer.append(dns.rrset.from_text(".", 60, "IN", "RRSIG", f"SOA 8 0 86400 {times} 20326 . AAAA"))
    return Reply(raw=reply.to_wire())


class Host:
    """A host where all is well, until a test breaks something."""

    def __init__(self, folder, server):
        self.server = server
        self.folder = folder
        self.path = folder / "milter.sock"
        self.nameservers = [server.text]
        self.more = ""
        self.zone = "bl.example"
        self.cf = folder / "sendmail.cf"
        self.now = time.time()
        server.zones |= {"": clear(), "bl.example": entries()}
        self.about_root = signed
        server.handler = lambda question: self.about_root(question) if question.name in ("", ".") else None
        self.write_cf()

    def write_cf(self, *, user="root", active="dnsbl-milter", macros="i, {auth_type}, {auth_authen}", at=None, rest=", T=C:10s;S:10s;R:10s;E:30s"):
        self.cf.write_text(CF.format(user=user, active=active, macros=macros, socket=at or f"local:{self.path}", rest=rest))

    def configuration(self):
        names = ", ".join(json.dumps(name) for name in self.nameservers)
        return (
            f'[milter]\nsocket = "local:{self.path}"\n[dns]\nnameservers = [{names}]\ndeadline = 1.5\nretry = 0.5\n'
            f'[actions]\ntag = 3\n[memory]\nurl = ""\n[[list]]\nname = "one"\nzone = "{self.zone}"\nweight = 4\n{self.more}'
        )

    def problems(self):
        findings = diagnose(parse(self.configuration(), "test"), self.cf, self.now)
        assert all(finding.fix for finding in findings if finding.ok is False)
        return {(finding.check, finding.about): finding for finding in findings if finding.ok is False}

    def only_problem(self, check):
        problems = self.problems()
        assert {name for name, _ in problems} == {check}, problems
        return next(iter(problems.values()))


@pytest.fixture
def host(monkeypatch):
    # A machine that is busy with other tests is not far away.
    monkeypatch.setattr(nameserver_checks, "NEAR_SECONDS", 0.4)
    # Sendmail's rules about folders hold for every one above, and /tmp is world-writable.
    folder = Path("/run") / f"doctor-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(mode=0o755)
    with NameServer() as server, socket.socket(socket.AF_UNIX) as listening:
        made = Host(folder, server)
        listening.bind(str(made.path))
        listening.listen(16)
        made.listening = listening
        yield made
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()


def test_where_all_is_well_nothing_is_found(host):
    assert host.problems() == {}
    findings = diagnose(parse(host.configuration(), "test"), host.cf, host.now)
    assert {finding.ok for finding in findings} == {True}
    assert {finding.check for finding in findings} == {
        "configuration", "nameserver", "public resolver", "rewriting", "latency", "TCP", "DNSSEC", "error codes",
        "list", "socket", "Sendmail", "macros", "clock",
    }  # fmt: skip


# --- the nameserver


def test_a_nameserver_that_does_not_answer(host, nobody):
    host.nameservers = [nobody, host.server.text]
    found = host.only_problem("nameserver")
    assert (found.about, found.says) == (nobody, "does not answer")


def test_a_nameserver_that_refuses_us(host):
    host.server.zones[""] = failure(REFUSED)
    assert "access-control" in host.only_problem("nameserver").fix


def test_a_public_nameserver(host, monkeypatch):
    monkeypatch.setitem(PUBLIC, "127.0.0.1", "Example")
    found = host.only_problem("public resolver")
    assert "Example's public resolver" in found.says
    assert "unbound" in found.fix


def test_a_nameserver_that_rewrites(host):
    host.server.zones[""] = listed(PARKED)
    host.only_problem("rewriting")


def test_a_nameserver_that_rewrites_all_but_what_is_below_invalid(host):
    host.server.handler = lambda question: (
        host.about_root(question) if question.name in ("", ".") else listed(PARKED) if not question.zone and not question.name.endswith(".invalid") else None
    )
    host.only_problem("rewriting")


def test_a_nameserver_that_is_far_away(host):
    host.server.zones[""] = clear(delay=0.5)
    assert "ms" in host.only_problem("latency").says


def test_a_nameserver_without_tcp(host):
    with NameServer(dict(host.server.zones), host.server.handler, tcp=False) as server:
        host.nameservers = [server.text]
        assert "port 53" in host.only_problem("TCP").fix


def test_a_nameserver_that_does_not_validate(host):
    host.about_root = lambda question: signed(question, authentic=False)
    assert "does not validate" in host.only_problem("DNSSEC").says


def test_a_nameserver_that_cannot_validate(host):
    host.about_root = lambda question: (
        signed(question, authentic=False) if dns.message.from_wire(question.packet).flags & dns.flags.CD else failure(SERVFAIL)
    )
    assert "trust anchor" in host.only_problem("DNSSEC").fix


@pytest.mark.parametrize("about_root", [clear(negative_ttl=None), failure(REFUSED), failure(SERVFAIL), SILENCE], ids=["none", "refused", "servfail", "silent"])
def test_where_the_root_is_not_to_be_had_nothing_is_said_of_dnssec(host, about_root):
    host.about_root = lambda question: about_root
    assert host.problems() == {}


# --- the lists


def test_operators_that_refuse_us(host):
    host.server.zones["bl.example"] = listed("127.255.255.254")
    problems = host.problems()
    assert {name for name, _ in problems} == {"error codes", "list"}
    assert "one" in problems["error codes", "lists"].says


@pytest.mark.parametrize("answers", [listed("127.255.255.250"), clear(), failure(REFUSED)], ids=["code", "empty", "refused"])
def test_a_key_that_is_not_accepted(host, answers):
    key = host.folder / "key"
    key.write_text("s3cr3t\n")
    host.more = f'[[list]]\nname = "keyed"\nzone = "{{key}}.keyed.example"\nkey_file = "{key}"\nweight = 3\n'
    host.server.zones["s3cr3t.keyed.example"] = entries()
    assert host.problems() == {}
    host.server.zones["s3cr3t.keyed.example"] = answers
    found = host.problems()["key", "keyed"]
    assert "key_file" in found.fix
    assert "s3cr3t" not in str(host.problems())


LISTS = [
    # what the list answers, what is said
    (listed("127.0.0.2"), "lists everything"),
    (clear(), "does not list its test entry"),
    (SILENCE, "does not answer"),
    (listed(PARKED), "outside 127/8"),
]


@pytest.mark.parametrize(("answers", "says"), LISTS, ids=[row[1] for row in LISTS])
def test_a_list_with_wrong_test_entries(host, answers, says):
    host.more = '[[list]]\nname = "two"\nzone = "two.example"\nweight = 4\n'
    host.server.zones["two.example"] = answers
    found = host.only_problem("list")
    assert found.about == "two"
    assert says in found.says + found.fix


def test_a_list_whose_test_entry_has_another_code(host):
    host.more = '[[list]]\nname = "two"\nzone = "two.example"\nweight = 4\nexpect = { listed = "127.0.0.4" }\n'
    host.server.zones["two.example"] = entries("127.0.0.9")
    found = host.only_problem("list")
    assert (found.about, found.says) == ("two", "its test entry answers 127.0.0.9 where 127.0.0.4 is expected")
    assert 'expect = { listed = "127.0.0.9" }' in found.fix


# --- the socket


def test_nobody_serves_the_socket(host):
    host.listening.close()
    assert "start the milter" in host.only_problem("socket").fix
    host.path.unlink()
    assert "start the milter" in host.only_problem("socket").fix
    host.path.touch()


def test_a_socket_that_sendmail_s_user_may_not_reach(host):
    host.write_cf(user=f"{NOBODY}:mail")
    host.path.chmod(0o660)
    found = host.only_problem("socket")
    assert NOBODY in found.says
    host.path.chmod(0o666)
    assert host.problems() == {}
    host.folder.chmod(0o700)
    assert NOBODY in host.only_problem("socket").fix


def test_a_user_of_sendmail_s_that_does_not_exist(host):
    with pytest.raises(KeyError):
        pwd.getpwnam("nobody-of-that-name")
    host.write_cf(user="nobody-of-that-name")
    host.only_problem("socket")


def test_a_socket_below_a_folder_that_anybody_writes_to(host):
    host.folder.chmod(0o1777)
    found = host.only_problem("socket")
    assert str(host.folder) in found.says
    assert stat.S_ISSOCK(host.path.stat().st_mode)


# --- Sendmail


@pytest.mark.parametrize(("change", "says"), [
    ({"at": "local:/run/elsewhere.sock"}, "has no filter"),
    ({"at": "nonsense"}, "has no filter"),
    ({"active": "other"}, "does not use it"),
    ({"active": ""}, "does not use it"),
    ({"rest": ", F=T, T=R:10s"}, "delays all mail"),
    ({"rest": ", F=R"}, "refuses all mail"),
    ({"rest": ", T=C:10s;R:1s"}, "T=R:1s is too short"),
])  # fmt: skip
def test_a_sendmail_that_does_not_call_us_right(host, change, says):
    host.write_cf(**change)
    problems = host.problems()
    assert {name for name, _ in problems} == {"Sendmail"}
    (found,) = problems.values()
    assert says in found.says
    assert "INPUT_MAIL_FILTER" in found.fix


@pytest.mark.parametrize(("macros", "says"), [("i", "{auth_authen}"), ("{auth_authen}", "does not send i "), ("", "i, {auth_authen}")])
def test_a_sendmail_that_does_not_send_its_macros(host, macros, says):
    host.write_cf(macros=macros)
    assert says in host.only_problem("macros").says


def test_without_sendmail_there_is_nothing_to_check(host):
    host.cf.unlink()
    findings = {finding.check: finding.ok for finding in diagnose(parse(host.configuration(), "test"), host.cf, host.now)}
    assert (findings["Sendmail"], findings["macros"]) == (None, None)


def test_a_cf_is_read():
    read = read_cf("O InputMailFilters=a, b;c\nO Milter.macros.envfrom=i,\n\t{auth_authen}\n#O x=y\nXa, S=inet:1@h, F=R, T=C:1m;R:2h\nXb,S=local:/x\n")
    assert read.filters == (Filter("a", "inet:1@h", "R", "C:1m;R:2h"), Filter("b", "local:/x"))
    assert [read.filters[0].timeout(letter) for letter in "CRS"] == [60, 7200, None]
    assert (read.active, read.macros("envfrom"), read.macros("eom")) == (("a", "b", "c"), ("i", "{auth_authen}"), ())


# --- the clock, and the configuration


def test_a_clock_that_is_behind(host):
    host.now = 0.0
    host.about_root = lambda question: signed(question, since=-int(time.time()), until=10)
    assert "is behind" in host.only_problem("clock").says


@pytest.mark.parametrize(("since", "until"), [(3600, 7200), (-7200, -3600)], ids=["before", "after"])
def test_a_clock_that_disagrees_with_signatures(host, since, until):
    host.about_root = lambda question: signed(question, since=since, until=until)
    assert "signatures" in host.only_problem("clock").says


def test_a_configuration_with_a_warning(host):
    host.more = '[[list]]\nname = "never"\nzone = "bl2.example"\nweight = 0.01\n'
    host.server.zones["bl2.example"] = entries()
    assert "can never matter" in host.only_problem("configuration").says


# --- the command


def test_the_command_shows_one_line_a_check_and_its_status(host):
    file = host.folder / "dnsbl-milter.toml"
    file.write_text(host.configuration())
    fine = command("doctor", "--config", file, "--cf", host.cf)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert all(line.startswith("ok ") for line in fine.stdout.splitlines())
    host.server.zones["bl.example"] = listed("127.0.0.2")
    bad = command("doctor", "--config", file, "--cf", host.cf, "--json")
    document = json.loads(bad.stdout)
    assert (bad.returncode, document["ok"]) == (1, False)
    assert [each["check"] for each in document["findings"] if each["ok"] is False] == ["list"]
    shown = command("doctor", "--config", file, "--cf", host.cf)
    assert any(line.startswith("PROBLEM") and "fix: " in line for line in shown.stdout.splitlines())


def test_every_check_says_what_it_does():
    assert all(check.__doc__ for check in CHECKS)
    assert main.commands["doctor"].help
