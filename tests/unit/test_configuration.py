"""The configuration file: every fault has its message, and what is right becomes exactly the policy it says."""

import json
import os
import re
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner

from dnsbl_milter import configuration as module
from dnsbl_milter import settings as settings_module
from dnsbl_milter.cli import main
from dnsbl_milter.configuration import DEFAULT_PATH, Configuration, catalog, load, parse
from dnsbl_milter.effective import shown_settings
from dnsbl_milter.nameserver import Nameserver
from dnsbl_milter.settings import Invalid, Settings
from dnsbl_policy.actions import Action
from dnsbl_policy.allow import Exemption
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import DnsList, Expect, Rule

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parent / "configurations"
CONTRACT = ROOT.parent / "shared" / "CONTRACT.md"

LIST = '[[list]]\nname = "one"\nzone = "bl.example.net"\n'
NAMESERVER = '[dns]\nnameservers = ["127.0.0.1"]\n'


def faults(text: str) -> list[str]:
    """Return the messages about a configuration, without the file's name."""
    with pytest.raises(Invalid) as caught:
        parse(text, "f.toml")
    messages = str(caught.value).splitlines()
    assert all(message.startswith("f.toml: ") for message in messages)
    return [message.removeprefix("f.toml: ") for message in messages]


def loaded(text: str) -> Configuration:
    return parse(text if "[dns]" in text else f"{text}\n{NAMESERVER}", "f.toml")


def one_list(text: str) -> DnsList:
    (one,) = loaded(text).policy.lists
    return one


def rule(weight: int, match: str | None = None, label: str = "") -> Rule:
    return Rule(weight, None if match is None else parse_pattern(match), label)


# --- bad values, key by key

SOCKET = "expected local:/path, inet:port@host or inet6:port@host, as in Sendmail's S="
PORT = "expected a port from 1 to 65535 and a host, such as inet:8891@localhost"
MODE = 'expected permissions in octal, such as "0660"'
SERVER = "expected an address, or address#port, such as 127.0.0.1 or ::1#5353"
POINTS = "expected points between -1000 and 1000"
ABOVE_0 = "expected more than 0, which is what a client without evidence scores"
NETWORK = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"
HOST = "expected a full host name such as mail.example.org, or .example.org for every host below it"
RECIPIENT = "expected user@domain, user@ (at any domain) or @domain (every user)"
MEMORY = 'expected sqlite:///path, redis://host:port/number, rediss://..., or "" for none'
LISTEN = 'expected "host:port", such as "127.0.0.1:10782", or "" for none'
TEXT, TABLE, NUMBER, WHOLE = "expected text in quotes", "expected a table", "expected a number", "expected a whole number"
FLAG, ARRAY = "expected true or false", "expected a list in [ ]"
LEVELS = "expected 'debug', 'info', 'warning' or 'error'"

VALUES = [
    # key, value, message
    ("milter.socket", "8891", f"8891: {TEXT}"),
    ("milter.socket", '""', f"'': {SOCKET}"),
    ("milter.socket", '"/run/milter.sock"', f"'/run/milter.sock': {SOCKET}"),
    ("milter.socket", '"tcp:8891"', f"'tcp:8891': {SOCKET}"),
    ("milter.socket", '"inet:0@127.0.0.1"', f"'inet:0@127.0.0.1': {PORT}"),
    ("milter.socket_mode", "0o660", f"432: {TEXT}"),
    ("milter.socket_mode", '"0999"', f"'0999': {MODE}"),
    ("milter.socket_mode", '"10660"', f"'10660': {MODE}"),
    ("milter.socket_mode", '"rw-rw----"', f"'rw-rw----': {MODE}"),
    ("milter.workers", '"2"', f"'2': {WHOLE}"),
    ("milter.workers", "2.0", f"2.0: {WHOLE}"),
    ("milter.workers", "true", f"true: {WHOLE}"),
    ("milter.workers", "0", "0: expected at least 1"),
    ("milter.workers", "65", "65: expected at most 64"),
    ("milter.workers", "1" + "0" * 70, f"1{'0' * 59}…: expected at most 64"),
    ("milter.drain_seconds", '"30"', f"'30': {NUMBER}"),
    ("milter.drain_seconds", "-1", "-1: expected at least 0.0"),
    ("milter.drain_seconds", "3601", "3601: expected at most 3600.0"),
    ("dns.nameservers", '"127.0.0.1"', f"'127.0.0.1': {ARRAY}"),
    ("dns.nameservers[0]", "127", f"127: {TEXT}"),
    ("dns.nameservers[0]", '"localhost"', f"'localhost': {SERVER}"),
    ("dns.nameservers[0]", '"127.0.0.1:5353"', f"'127.0.0.1:5353': {SERVER}"),
    ("dns.nameservers[0]", '"127.0.0.1#"', "'127.0.0.1#': expected a port from 1 to 65535 after '#'"),
    ("dns.nameservers[0]", '"127.0.0.1#65536"', "'127.0.0.1#65536': expected a port from 1 to 65535 after '#'"),
    ("dns.deadline", '"2 s"', f"'2 s': {NUMBER}"),
    ("dns.deadline", "0.04", "0.04: expected at least 0.05"),
    ("dns.deadline", "30.1", "30.1: expected at most 30.0"),
    ("dns.deadline", "inf", "inf: expected at most 30.0"),
    ("dns.retry", "false", f"false: {NUMBER}"),
    ("dns.retry", "0.01", "0.01: expected at least 0.02"),
    ("dns.retry", "31", "31: expected at most 30.0"),
    ("cache.clients", "1e5", f"100000.0: {WHOLE}"),
    ("cache.clients", "0", "0: expected at least 1"),
    ("cache.clients", "10_000_001", "10000001: expected at most 10000000"),
    ("cache.min_ttl", '"1m"', f"'1m': {WHOLE}"),
    ("cache.min_ttl", "-1", "-1: expected at least 0"),
    ("cache.min_ttl", "86401", "86401: expected at most 86400"),
    ("cache.min_ttl", "3601", "3601: expected at most cache.max_ttl, 3600"),
    ("cache.max_ttl", "1979-05-27", f"datetime.date(1979, 5, 27): {WHOLE}"),
    ("cache.max_ttl", "0", "0: expected at least 1"),
    ("cache.max_ttl", "604801", "604801: expected at most 604800"),
    ("cache.error_ttl", "[]", f"[]: {WHOLE}"),
    ("cache.error_ttl", "0", "0: expected at least 1"),
    ("cache.error_ttl", "301", "301: expected at most 300"),
    ("actions.tag", '"3"', f"'3': {NUMBER}"),
    ("actions.tag", "true", f"true: {NUMBER}"),
    ("actions.tag", "3.125", "3.125: expected at most two decimals"),
    ("actions.tag", "nan", "nan: expected a number of points such as 4.5"),
    ("actions.tag", "inf", f"inf: {POINTS}"),
    ("actions.tag", "0", f"0.0: {ABOVE_0}"),
    ("actions.tag", "-3", f"-3.0: {ABOVE_0}"),
    ("actions.defer", "{}", f"{{}}: {NUMBER}"),
    ("actions.defer", "1000.01", f"1000.01: {POINTS}"),
    ("actions.defer", "0.0", f"0.0: {ABOVE_0}"),
    ("actions.quarantine", "[8]", f"[8]: {NUMBER}"),
    ("actions.quarantine", "-0.01", f"-0.01: {ABOVE_0}"),
    ("actions.reject", '"never"', f"'never': {NUMBER}"),
    ("actions.reject", "0", f"0.0: {ABOVE_0}"),
    ("actions.discard", '""', f"'': {NUMBER}"),
    ("actions.discard", "1e9", f"1000000000.0: {POINTS}"),
    ("actions.mode", "true", "true: expected 'enforce' or 'observe'"),
    ("actions.mode", '"Enforce"', "'Enforce': expected 'enforce' or 'observe'"),
    ("headers.add", "true", "true: expected 'always', 'tagged' or 'never'"),
    ("headers.add", '"all"', "'all': expected 'always', 'tagged' or 'never'"),
    ("allow.networks", '"192.0.2.0/24"', f"'192.0.2.0/24': {ARRAY}"),
    ("allow.networks[0]", "192", f"192: {TEXT}"),
    ("allow.networks[0]", '"192.0.2"', f"'192.0.2': {NETWORK}"),
    ("allow.networks[0]", '"192.0.2.0/33"', f"'192.0.2.0/33': {NETWORK}"),
    ("allow.networks[0]", '"mail.example.org"', f"'mail.example.org': {NETWORK}"),
    (
        "allow.networks[0]",
        '"2001:db8::1/32"',
        "'2001:db8::1/32': has bits set beyond its prefix; did you mean 2001:db8::/32?",
    ),
    ("allow.hosts", "{}", f"{{}}: {ARRAY}"),
    ("allow.hosts[0]", '"localhost"', f"'localhost': {HOST}"),
    ("allow.hosts[0]", '"*.example.org"', f"'*.example.org': {HOST}"),
    ("allow.hosts[0]", '"192.0.2.1"', f"'192.0.2.1': {HOST}"),
    ("allow.recipients", "false", f"false: {ARRAY}"),
    ("allow.recipients[0]", '"postmaster"', f"'postmaster': {RECIPIENT}"),
    ("allow.recipients[0]", '"@"', f"'@': {RECIPIENT}"),
    ("allow.recipients[0]", '"two words@example.org"', f"'two words@example.org': {RECIPIENT}"),
    ("allow.authenticated", '"yes"', f"'yes': {FLAG}"),
    ("allow.authenticated", "1", f"1: {FLAG}"),
    ("allow.files", '"/etc/allow.txt"', f"'/etc/allow.txt': {ARRAY}"),
    ("allow.files[0]", "1", f"1: {TEXT}"),
    # The memory's address may hold a password, so it is not shown.
    ("memory.url", "6379", TEXT),
    ("memory.url", '"redis:/:hidden@host"', MEMORY),
    ("memory.url", '"/var/lib/memory.db"', MEMORY),
    ("memory.delay", "300.5", f"300.5: {WHOLE}"),
    ("memory.delay", "-1", "-1: expected at least 0"),
    ("memory.delay", "172800", "172800: expected less than memory.window, 172800"),
    ("memory.window", '"2d"', f"'2d': {WHOLE}"),
    ("memory.window", "-1", "-1: expected at least 0"),
    ("memory.remember", "true", f"true: {WHOLE}"),
    ("memory.remember", "315360001", "315360001: expected at most 315360000"),
    ("memory.password_file", "1", f"1: {TEXT}"),
    ("metrics.listen", "10782", f"10782: {TEXT}"),
    ("metrics.listen", '"10782"', f"'10782': {LISTEN}"),
    ("metrics.listen", '":10782"', f"':10782': {LISTEN}"),
    ("metrics.listen", '"127.0.0.1:0"', f"'127.0.0.1:0': {LISTEN}"),
    ("metrics.listen", '"127.0.0.1:65536"', f"'127.0.0.1:65536': {LISTEN}"),
    ("metrics.listen", '"a..b:10782"', f"'a..b:10782': {LISTEN}"),
    ("log.format", '"syslog"', "'syslog': expected 'logfmt' or 'json'"),
    ("log.level", '"INFO"', f"'INFO': {LEVELS}"),
    ("health.interval", "0.5", f"0.5: {WHOLE}"),
    ("health.interval", "0", "0: expected at least 1"),
    ("health.interval", "86401", "86401: expected at most 86400"),
    ("health.proof", '"no"', f"'no': {FLAG}"),
    ("health.enabled", "0", f"0: {FLAG}"),
    ("groups.spamhaus", "7.0", f"7.0: {TABLE}"),
    ("groups.spamhaus", "{}", None),
    ("groups.spamhaus.cap", '"7"', f"'7': {NUMBER}"),
    ("groups.spamhaus.cap", "7.123", "7.123: expected at most two decimals"),
    ("groups.spamhaus.cap", "0", "0: expected more than 0"),
    ("groups.spamhaus.cap", "-1.5", "-1.5: expected more than 0"),
]


@pytest.mark.parametrize(("key", "value", "message"), VALUES)
def test_a_bad_value_is_told_with_its_key_and_what_would_be_right(key, value, message):
    table, _, name = key.rpartition(".")
    if name.endswith("[0]"):
        name, value = name.removesuffix("[0]"), f"[{value}]"
    if message is None:
        key, message = f"{key}.cap", "is missing, and must be given"
    assert faults(f"[{table}]\n{name} = {value}\n") == [f"{key}: {message}"]


def test_every_key_of_every_table_has_a_row_above_or_below():
    with_rows = {re.sub(r"\[.*", "", key) for key, _, _ in VALUES}
    tables = {name: field.default for name, field in Settings.model_fields.items() if name not in ("list", "groups")}
    keys = {f"{name}.{key}" for name, table in tables.items() for key in type(table).model_fields}
    assert keys - with_rows == set()
    in_lists = {re.sub(r".*\.", "", row[1]) for row in LISTS}
    assert set(settings_module.ListSection.model_fields) - in_lists == set()
    assert {"match", "weight", "label", "listed", "clear"} - in_lists == set()


TABLES = ["milter", "dns", "cache", "actions", "headers", "allow", "memory", "metrics", "log", "health"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_none(name):
    assert faults(f"{name} = 3\n") == [f"{name}: 3: {TABLE}"]
    assert faults(f"[[{name}]]\n") == [f"{name}: [{{}}]: {TABLE}"]


UNKNOWN = [
    # text, path, suggestion
    ("[milter]\nsokcet = 1", "milter.sokcet", "did you mean socket?"),
    ("[milter]\nx = 1", "milter.x", "known here: socket, socket_mode, workers, drain_seconds"),
    ("[dns]\nnameserver = []", "dns.nameserver", "did you mean nameservers?"),
    ("[dns]\ntimeout = 1", "dns.timeout", "known here: nameservers, deadline, retry"),
    ("[cache]\nmaxttl = 1", "cache.maxttl", "did you mean max_ttl?"),
    ("[actions]\nrejct = 1", "actions.rejct", "did you mean reject?"),
    ("[actions]\naccept = 1", "actions.accept", "known here: tag, defer, quarantine, reject, discard, mode"),
    ("[headers]\nname = 1", "headers.name", "known here: add"),
    ("[allow]\nnetwork = []", "allow.network", "did you mean networks?"),
    ("[memory]\nurls = 1", "memory.urls", "did you mean url?"),
    ("[metrics]\nlistn = 1", "metrics.listn", "did you mean listen?"),
    ("[log]\nlvl = 1", "log.lvl", "did you mean level?"),
    ("[health]\nintervall = 1", "health.intervall", "did you mean interval?"),
    (LIST + "weigth = 1", "list[0].weigth (list 'one')", "did you mean weight?"),
    (LIST + "codes = [{ mach = 1, match = '127.0.0.2', weight = 1 }]", "list[0].codes[0].mach (list 'one')", "did you mean match?"),
    (LIST + "weight = 1\nexpect = { lsted = 1 }", "list[0].expect.lsted (list 'one')", "did you mean listed?"),
    ("[groups]\nfirst = { cap = 1, cop = 2 }", "groups.first.cop", "did you mean cap?"),
    # A group may be called like a table.
    ("[groups]\nmilter = { cap = 1, sockets = 2 }", "groups.milter.sockets", "known here: cap"),
    ("[lists]", "lists", "did you mean list?"),
    ("zone = 1", "zone", f"known here: {', '.join(TABLES)}, list, groups"),
    # A key in quotes may hold anything; a message stays one line.
    ('"two\\nlines" = 1', '"two\\nlines"', f"known here: {', '.join(TABLES)}, list, groups"),
]


@pytest.mark.parametrize(("text", "path", "suggestion"), UNKNOWN)
def test_an_unknown_key_is_told_with_a_suggestion(text, path, suggestion):
    assert faults(text) == [f"{path}: unknown key; {suggestion}"]


# --- bad lists

NAME = "expected at most 64 letters, digits and . _ + / - (it stands in logs, headers and metrics)"
SCOPES = "expected 'ip', 'net24', 'asn', 'dynamic' or 'name'"
URL = "expected an http or https address of printable ASCII, {client} standing for the client"
MISSING = "is missing, and must be given"
NO_WEIGHT = "is missing, and so is codes; the catalog does not know this zone"
EMPTY_LABEL = "has an empty label: two dots in a row, or one at the start or the end"
CHARACTERS = "has characters that no zone has; expected letters, digits, '-', '_' and '.'"
LONG_ZONE = ".".join(["a" * 63] * 3)

LISTS = [
    # what stands in the list, key, message
    ('name = 1\nzone = "bl.example.net"\nweight = 1', "name", f"1: {TEXT}"),
    ('name = ""\nzone = "bl.example.net"\nweight = 1', "name", f"'': {NAME}"),
    ('name = "two words"\nzone = "bl.example.net"\nweight = 1', "name", f"'two words': {NAME}"),
    ('name = "a,b"\nzone = "bl.example.net"\nweight = 1', "name", f"'a,b': {NAME}"),
    ('name = "größe"\nzone = "bl.example.net"\nweight = 1', "name", f"'größe': {NAME}"),
    ('name = "a\\nb"\nzone = "bl.example.net"\nweight = 1', "name", f"'a\\nb': {NAME}"),
    (f'name = "{"a" * 65}"\nzone = "bl.example.net"\nweight = 1', "name", f"'{'a' * 59}…: {NAME}"),
    ("weight = 1", "zone", MISSING),
    # A zone may have a key written into it, so a faulty one is not shown.
    ("zone = 1\nweight = 1", "zone", TEXT),
    ('zone = ""\nweight = 1', "zone", "expected a domain name with a dot, such as bl.example.net"),
    ('zone = "spamcop"\nweight = 1', "zone", "expected a domain name with a dot, such as bl.example.net"),
    ('zone = "hidden..example.net"\nweight = 1', "zone", EMPTY_LABEL),
    ('zone = ".example.net"\nweight = 1', "zone", EMPTY_LABEL),
    ('zone = "bl.example.net.."\nweight = 1', "zone", EMPTY_LABEL),
    ('zone = "bl.exämple.net"\nweight = 1', "zone", "has characters outside ASCII; write an international name in its xn-- form"),
    ('zone = "bl example.net"\nweight = 1', "zone", CHARACTERS),
    ('zone = "https://example.net"\nweight = 1', "zone", CHARACTERS),
    ('zone = "{Key}.example.net"\nweight = 1', "zone", CHARACTERS),
    (f'zone = "{"a" * 64}.example.net"\nweight = 1', "zone", "has a label of more than 63 characters"),
    (f'zone = "{LONG_ZONE}"\nweight = 1', "zone", "is longer than 189 characters, which leaves no room for an IPv6 client"),
    ('zone = "bl.example.net"', "weight", NO_WEIGHT),
    ('zone = "bl.example.net"\ncodes = []', "weight", NO_WEIGHT),
    ('zone = "bl.example.net"\nenabled = false', "weight", NO_WEIGHT),
    ('zone = "bl.example.net"\ntimeout = 0\nweight = 1', "timeout", "0: expected at least 0.02"),
    ('zone = "bl.example.net"\nweight = "4"', "weight", f"'4': {NUMBER}"),
    ('zone = "bl.example.net"\nweight = 4.005', "weight", "4.005: expected at most two decimals"),
    ('zone = "bl.example.net"\nweight = -1000.01', "weight", f"-1000.01: {POINTS}"),
    ('zone = "bl.example.net"\nweight = nan', "weight", "nan: expected a number of points such as 4.5"),
    ('zone = "bl.example.net"\ncodes = {}', "codes", f"{{}}: {ARRAY}"),
    ('zone = "bl.example.net"\ncodes = ["127.0.0.2"]', "codes[0]", f"'127.0.0.2': {TABLE}"),
    ('zone = "bl.example.net"\ncodes = [{ weight = 1 }]', "codes[0].match", MISSING),
    ('zone = "bl.example.net"\ncodes = [{ match = "127.0.0.2" }]', "codes[0].weight", MISSING),
    ('zone = "bl.example.net"\ncodes = [{ match = 2, weight = 1 }]', "codes[0].match", f"2: {TEXT}"),
    (
        'zone = "bl.example.net"\ncodes = [{ match = "127.0.0.2", weight = 1 }, { match = "127.0.0.[2;4", weight = 1 }]',
        "codes[1].match",
        "'127.0.0.[2;4', character 13: expected ';', '..' or ']'",
    ),
    (
        'zone = "bl.example.net"\ncodes = [{ match = "10.0.0.0/8", weight = 1 }]',
        "codes[0].match",
        "'10.0.0.0/8', character 1: lies outside 127.0.0.0/8, where every return code is",
    ),
    (
        'zone = "bl.example.net"\ncodes = [{ match = "&0.0.0.0", weight = 1 }]',
        "codes[0].match",
        "'&0.0.0.0', character 2: a bit mask needs at least one bit; leave `match` out for any answer",
    ),
    (
        f'zone = "bl.example.net"\ncodes = [{{ match = "127.0.0.[{"2;" * 40}]", weight = 1 }}]',
        "codes[0].match",
        f"'127.0.0.[{'2;' * 25}…, character 90: expected a number from 0 to 255",
    ),
    ('zone = "bl.example.net"\ncodes = [{ match = "127.0.0.2", weight = 1.001 }]', "codes[0].weight", "1.001: expected at most two decimals"),
    ('zone = "bl.example.net"\ncodes = [{ match = "127.0.0.2", weight = 1, label = "a b" }]', "codes[0].label", f"'a b': {NAME}"),
    ('zone = "bl.example.net"\nweight = 1\ngroup = 1', "group", f"1: {TEXT}"),
    ('zone = "bl.example.net"\nweight = 1\ngroup = "a\\nb"', "group", f"'a\\nb': {NAME}"),
    ('zone = "bl.example.net"\nweight = 1\ngroup = "all"', "group", "there is no [groups] all; add all = { cap = … }"),
    ('zone = "bl.example.net"\nweight = 1\nobserve = "yes"', "observe", f"'yes': {FLAG}"),
    ('zone = "bl.example.net"\nweight = 1\nenabled = 1', "enabled", f"1: {FLAG}"),
    ('zone = "bl.example.net"\nweight = 1\nipv4 = 4', "ipv4", f"4: {FLAG}"),
    ('zone = "bl.example.net"\nweight = 1\nipv6 = "true"', "ipv6", f"'true': {FLAG}"),
    ('zone = "bl.example.net"\nweight = 1\ntimeout = "1"', "timeout", f"'1': {NUMBER}"),
    ('zone = "bl.example.net"\nweight = 1\ntimeout = 30.5', "timeout", "30.5: expected at most 30.0"),
    ('zone = "bl.example.net"\nweight = 1\nurl = 1', "url", f"1: {TEXT}"),
    ('zone = "bl.example.net"\nweight = 1\nurl = "example.net/{client}"', "url", f"'example.net/{{client}}': {URL}"),
    ('zone = "bl.example.net"\nweight = 1\nurl = "https://example.net/a b"', "url", f"'https://example.net/a b': {URL}"),
    ('zone = "bl.example.net"\nweight = 1\nscope = "host"', "scope", f"'host': {SCOPES}"),
    ('zone = "bl.example.net"\nweight = 1\nscope = "name"', "zone", "bl.example.net lists names and takes no addresses; remove the list"),
    ('zone = "multi.surbl.org"', "zone", "multi.surbl.org lists names and takes no addresses; remove the list"),
    ('zone = "{key}.bl.example.net"\nweight = 1\nkey_file = 1', "key_file", f"1: {TEXT}"),
    ('zone = "{key}.bl.example.net"\nweight = 1', "key_file", "is missing, and the zone has {key}"),
    (
        'zone = "bl.example.net"\nweight = 1\nkey_file = "/etc/key"',
        "zone",
        "there is a key_file, but no {key} in the zone where the key would go",
    ),
    (
        'zone = "{key}.bl.example.net"\nweight = 1\nkey_file = "/nowhere/key"',
        "key_file",
        "'/nowhere/key': cannot be read: No such file or directory",
    ),
    # Who writes the key itself in the place of its file does not read it in the log.
    ('zone = "{key}.bl.example.net"\nweight = 1\nkey_file = "hidden"', "key_file", "the file: cannot be read: No such file or directory"),
    ('zone = "{key}.bl.example.net"\nweight = 1\nkey_file = "/etc/\\u0000"', "key_file", "'/etc/\\x00': cannot be read: embedded null byte"),
    ('zone = "{key}.bl.example.net"\nweight = 1\nkey_file = "/"', "key_file", "'/': cannot be read: Is a directory"),
    ('zone = "bl.example.net"\nweight = 1\nexpect = "none"', "expect", f"'none': {TABLE}"),
    ('zone = "bl.example.net"\nweight = 1\nexpect = { listed = 2 }', "expect.listed", f"2: {TEXT}"),
    (
        'zone = "bl.example.net"\nweight = 1\nexpect = { listed = "no" }',
        "expect.listed",
        "'no', character 1: expected a number from 0 to 255, or a set such as [2;4..7]",
    ),
    ('zone = "bl.example.net"\nweight = 1\nexpect = { clear = "no" }', "expect.clear", f"'no': {NETWORK}"),
    ('zone = "bl.example.net"\nweight = 1\nallow_dead = "sure"', "allow_dead", f"'sure': {FLAG}"),
    (
        'zone = "cbl.abuseat.org"',
        "zone",
        "cbl.abuseat.org is dead: folded into the XBL: ask zen.spamhaus.org (before 2026); remove the list, or set allow_dead = true",
    ),
    ('zone = "cbl.abuseat.org"\nallow_dead = true', "weight", NO_WEIGHT),
]


@pytest.mark.parametrize(("text", "key", "message"), LISTS)
def test_a_bad_list_is_told_with_its_place(text, key, message):
    (told,) = faults(f"[[list]]\nname = 'first'\nzone = 'first.example.net'\nweight = 1\n\n[[list]]\n{text}\n")
    path, _, what = told.partition(": ")
    assert re.sub(r" \(list .*\)", "", path) == f"list[1].{key}"
    assert what == message


WHOLE_LISTS = [
    ("list = 3", [f"list: 3: {ARRAY}"]),
    ("[list]\nzone = 'bl.example.net'", [f"list: {{'zone': 'bl.example.net'}}: {ARRAY}"]),
    ("list = ['bl.example.net', 3]", [f"list[0]: 'bl.example.net': {TABLE}", f"list[1]: 3: {TABLE}"]),
    (
        LIST + "weight = 1\n" + LIST.replace("bl.", "other.") + "weight = 1",
        ["list[1].name (list 'one'): 'one' is list[0]'s already; give each list its own"],
    ),
    (
        LIST + "weight = 1\n" + LIST.replace('"one"', '"two"').replace("bl.example.net", "BL.Example.Net.") + "weight = 2",
        ["list[1].zone (list 'two'): list[0] asks it already; put both under one list's codes"],
    ),
    # Without names the zone is one fault and not two.
    (
        "[[list]]\nzone = 'bl.example.net'\nweight = 1\n" * 2,
        ["list[1].zone (list 'bl.example.net'): list[0] asks it already; put both under one list's codes"],
    ),
    (
        (LIST + "weight = 1\n") * 2,
        [
            "list[1].zone (list 'one'): list[0] asks it already; put both under one list's codes",
            "list[1].name (list 'one'): 'one' is list[0]'s already; give each list its own",
        ],
    ),
    # A default name and a name that was given are names alike.
    (
        "[[list]]\nzone = 'bl.example.net'\nweight = 1\n[[list]]\nname = 'bl.example.net'\nzone = 'b.example.net'\nweight = 1",
        ["list[1].name (list 'bl.example.net'): 'bl.example.net' is list[0]'s already; give each list its own"],
    ),
    # The first is switched off, so the zone is asked once; and still there are two of one name.
    (
        LIST + "weight = 1\nenabled = false\n" + LIST + "weight = 1",
        ["list[1].name (list 'one'): 'one' is list[0]'s already; give each list its own"],
    ),
]


@pytest.mark.parametrize(("text", "messages"), WHOLE_LISTS)
def test_lists_that_do_not_go_together(text, messages):
    assert faults(text) == messages


def test_keys_that_dns_cannot_tell_apart_make_one_zone(tmp_path):
    for key in ("abc", "ABC", "other"):
        (tmp_path / key).write_text(key)
    lists = "".join(
        f"[[list]]\nname = '{name}'\nzone = '{{key}}.bl.example.net'\nweight = 1\nkey_file = '{tmp_path}/{key}'\n"
        for name, key in (("one", "abc"), ("two", "other"), ("three", "ABC"))
    )
    assert faults(lists) == ["list[2].zone (list 'three'): list[0] asks it already; put both under one list's codes"]


def test_equal_bounds_are_in_order():
    assert loaded("[cache]\nmin_ttl = 90\nmax_ttl = 90\n[memory]\ndelay = 1\nwindow = 2\n").settings.cache.min_ttl == 90


def test_the_same_zone_may_stand_by_switched_off():
    assert one_list(LIST + "weight = 1\n" + LIST.replace('"one"', '"two"') + "weight = 2\nenabled = false\n").name == "one"


ORDER = [
    ("tag = 6\ndefer = 3", ["actions.defer: 3.0: out of order; defer is harder than tag, so expected at least 6"]),
    ("tag = 6\nreject = 5.99", ["actions.reject: 5.99: out of order; reject is harder than tag, so expected at least 6"]),
    (
        "discard = 1\nreject = 2\nquarantine = 3\ndefer = 4.5\ntag = 5",
        [
            "actions.defer: 4.5: out of order; defer is harder than tag, so expected at least 5",
            "actions.quarantine: 3.0: out of order; quarantine is harder than tag, so expected at least 5",
            "actions.reject: 2.0: out of order; reject is harder than tag, so expected at least 5",
            "actions.discard: 1.0: out of order; discard is harder than tag, so expected at least 5",
        ],
    ),
    # A threshold that is refused is no measure for the others.
    ("tag = 0\ndefer = 3\nquarantine = 2", [f"actions.tag: 0.0: {ABOVE_0}", "actions.quarantine: 2.0: out of order; quarantine is harder than defer, so expected at least 3"]),
    ('tag = "6"\ndefer = 3', [f"actions.tag: '6': {NUMBER}"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "messages"), ORDER)
def test_thresholds_out_of_order(text, messages):
    assert faults(f"[actions]\n{text}\n") == messages


def test_equal_thresholds_are_in_order_and_the_harder_action_is_taken():
    assert loaded("[actions]\ntag = 3\nquarantine = 3\n").policy.tiers.of(300) is Action.QUARANTINE


# --- all at once, and nothing twice


def test_ten_faults_are_ten_messages_in_one_go():
    with pytest.raises(Invalid) as caught:
        load(FILES / "ten-faults.toml")
    assert str(caught.value).splitlines() == [
        f"{FILES / 'ten-faults.toml'}: {message}"
        for message in (
            "milter.socket: 'local:run/milter.sock': expected an absolute path, such as local:/run/dnsbl-milter/milter.sock",
            "dns.nameserver: unknown key; did you mean nameservers?",
            "cache.clients: 'many': expected a whole number",
            "allow.networks[1]: '192.0.2.77/24': has bits set beyond its prefix; did you mean 192.0.2.0/24?",
            "list[0].codes[1].match (list 'first'): '127.0.0.[4..', character 13: expected the end of the range, a number from 0 to 255",
            "list[3].weight (list 'first'): 3.125: expected at most two decimals",
            "list[1].zone (list 'second'): cbl.abuseat.org is dead: folded into the XBL: ask zen.spamhaus.org (before 2026); remove the list, or set allow_dead = true",
            "list[2].weight (list 'third'): is missing, and so is codes; the catalog does not know this zone",
            "list[3].name (list 'first'): 'first' is list[0]'s already; give each list its own",
            "actions.defer: 3.0: out of order; defer is harder than tag, so expected at least 6",
        )
    ]
    assert len(caught.value.faults) == 10


CONSEQUENCES = [
    # What follows from a fault that is told already is no second fault.
    ("[groups]\nall = { cap = 'x' }\n" + LIST + "weight = 1\ngroup = 'all'", [f"groups.all.cap: 'x': {NUMBER}"]),
    ("groups = 1\n" + LIST + "weight = 1\ngroup = 'all'", [f"groups: 1: {TABLE}"]),
    ("[groups]\nall = { cop = 1, cap = 1 }\n" + LIST + "weight = 1\ngroup = 'all'", ["groups.all.cop: unknown key; did you mean cap?"]),
    ("[cache]\nmin_ttl = 'x'\nmax_ttl = 30", [f"cache.min_ttl: 'x': {WHOLE}"]),
    ("[cache]\nmin_ttl = 7200\nmax_ttl = 'x'", [f"cache.max_ttl: 'x': {WHOLE}"]),
    ("[memory]\ndelay = 'x'\nwindow = 10", [f"memory.delay: 'x': {WHOLE}"]),
    ("[memory]\ndelay = 200000\nwindow = 'x'", [f"memory.window: 'x': {WHOLE}"]),
    (LIST + "weight = 'x'", [f"list[0].weight (list 'one'): 'x': {NUMBER}"]),
    (LIST + "wait = 3\n", ["list[0].wait (list 'one'): unknown key; did you mean weight?"]),
    ("[[list]]\nname = 'one'\nzone = 'a..b'\nkey_file = '/nowhere'", [f"list[0].zone (list 'one'): {EMPTY_LABEL}"]),
    # What does not follow from it is told with it.
    (
        LIST + "timeout = 'x'\ngroup = 'all'",
        [
            f"list[0].timeout (list 'one'): 'x': {NUMBER}",
            "list[0].group (list 'one'): there is no [groups] all; add all = { cap = … }",
            f"list[0].weight (list 'one'): {NO_WEIGHT}",
        ],
    ),
    (
        "[cache]\nclients = 'x'\nmin_ttl = 7200",
        [f"cache.clients: 'x': {WHOLE}", "cache.min_ttl: 7200: expected at most cache.max_ttl, 3600"],
    ),
    (
        "[[list]]\nname = 'one'\nweight = 1\n" + LIST + "weight = 1",
        [f"list[0].zone (list 'one'): {MISSING}", "list[1].name (list 'one'): 'one' is list[0]'s already; give each list its own"],
    ),
]


@pytest.mark.parametrize(("text", "messages"), CONSEQUENCES)
def test_a_fault_is_told_once(text, messages):
    assert faults(text) == messages


def test_a_name_in_a_path_is_cut_and_escaped():
    (message,) = faults(f"[[list]]\nname = '{'a' * 300}'\nzone = 'bl.example.net'\nweight = 1\nx = 1\n")[1:]
    assert message.startswith(f"list[0].x (list '{'a' * 59}…): unknown key")


# --- the file itself


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Invalid) as caught:
        load(tmp_path / "missing.toml")
    assert str(caught.value) == f"{tmp_path}/missing.toml: cannot be read: No such file or directory"


def test_a_folder_for_a_file(tmp_path):
    with pytest.raises(Invalid) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_file_that_may_not_be_read(tmp_path):
    file = tmp_path / "private.toml"
    file.write_text("")
    file.chmod(0)
    tmp_path.chmod(0o755)

    def attempt() -> str:
        try:
            load(file)
        except Invalid as invalid:
            return str(invalid)
        return "was read"

    assert as_nobody(attempt) == f"{file}: cannot be read: Permission denied"


def test_a_file_that_is_not_text(tmp_path):
    file = tmp_path / "latin.toml"
    file.write_bytes(b"# caf\xe9\n")
    with pytest.raises(Invalid) as caught:
        load(file)
    assert str(caught.value) == f"{file}: is not UTF-8 text (byte 6)"


def test_a_device_for_a_file():
    with pytest.raises(Invalid) as caught:
        load(Path("/dev/zero"))
    assert str(caught.value) == "/dev/zero: is larger than 64 MiB"


NOT_TOML = [
    ("milter", "Expected '=' after a key in a key/value pair (at end of document)"),
    ("[milter", "Expected ']' at the end of a table declaration (at end of document)"),
    ("[milter]\nworkers = \n", "Invalid value (at line 2, column 11)"),
    ("[milter]\n[milter]\n", "Cannot declare ('milter',) twice (at line 2, column 8)"),
    ("a = 1\na = 2\n", "Cannot overwrite a value (at line 2, column 6)"),
    ("a = " + "9" * 5000, "a number is too long, or brackets are nested too deeply"),
    ("a = " + "[" * 5000, "a number is too long, or brackets are nested too deeply"),
]


@pytest.mark.parametrize(("text", "message"), NOT_TOML)
def test_a_file_that_is_not_toml(text, message):
    assert faults(text) == [f"is not TOML: {message}"]


def test_an_empty_file_accepts_everybody_and_says_so(tmp_path):
    file = tmp_path / "empty.toml"
    file.write_text("")
    configuration = load(file)
    assert configuration.policy.lists == ()
    assert configuration.policy.tiers.of(100_000) is Action.ACCEPT
    assert configuration.nameservers == ()
    assert configuration.warnings == ("list: there is no list, so every client is accepted",)


def test_without_a_file_the_packaged_policy_is_in_force_and_says_so(monkeypatch, tmp_path):
    default = tmp_path / "dnsbl-milter.toml"
    monkeypatch.setattr(module, "DEFAULT_PATH", default)
    monkeypatch.setattr(module, "system_nameservers", lambda: (Nameserver(ip_address("192.0.2.53")),))
    packaged = load()
    assert packaged.source == f"the packaged default policy ({default} does not exist)"
    assert packaged.policy.tiers.thresholds == ((300, Action.TAG),)
    assert packaged.warnings == ()
    default.write_text("")
    assert load().source == str(default)
    default.write_text("x = 1")
    with pytest.raises(Invalid, match="unknown key"):
        load()


def test_a_default_file_that_may_not_be_read_is_not_passed_over(monkeypatch, tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir(0o700)
    monkeypatch.setattr(module, "DEFAULT_PATH", folder / "dnsbl-milter.toml")
    tmp_path.chmod(0o755)

    def attempt() -> str:
        try:
            return load().source
        except Invalid as invalid:
            return str(invalid)

    assert as_nobody(attempt) == f"{folder}/dnsbl-milter.toml: cannot be read: Permission denied"


def test_the_default_path_is_the_contracts():
    assert str(DEFAULT_PATH) == "/etc/dnsbl-milter/dnsbl-milter.toml"


def as_nobody(attempt):
    """Return what a function returns in a process without privileges."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writing, attempt().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


# --- key files and allow files

KEYED = '[[list]]\nname = "paid"\nzone = "{key}.bl.example.net"\nweight = 1\n'


def keyed(tmp_path: Path, content: bytes, text: str = KEYED) -> str:
    file = tmp_path / "key"
    file.write_bytes(content)
    return f"{text}key_file = '{file}'\n"


KEYS = [
    (b"s3cret", "s3cret.bl.example.net"),
    (b"  S3cret-key_1\r\n", "S3cret-key_1.bl.example.net"),
    (b"k" * 63, "k" * 63 + ".bl.example.net"),
]


@pytest.mark.parametrize(("content", "zone"), KEYS)
def test_a_key_is_put_into_the_zone(tmp_path, content, zone):
    assert one_list(keyed(tmp_path, content)).zone == zone


BAD_KEYS = [b"", b"\n", b"two\nlines", b"two words", b"dotted.key", b"gr\xc3\xb6sse", b"\xff", b"k" * 64, b"*", b"key\0"]


@pytest.mark.parametrize("content", BAD_KEYS)
def test_a_key_file_must_hold_one_key(tmp_path, content):
    message = f"'{tmp_path}/key': expected one line with one key of letters and digits"
    assert faults(keyed(tmp_path, content)) == [f"list[0].key_file (list 'paid'): {message}"]


def test_a_key_that_makes_its_zone_impossible(tmp_path):
    text = KEYED.replace("{key}.", "a{key}.")
    (message,) = faults(keyed(tmp_path, b"k" * 63, text))
    assert message.endswith("/key': the zone with its key has a label of more than 63 characters")
    text = KEYED.replace("bl.example.net", ".".join(["a" * 60] * 3))
    (message,) = faults(keyed(tmp_path, b"k" * 63, text))
    assert message.endswith("/key': the zone with its key is longer than 189 characters, which leaves no room for an IPv6 client")


def test_an_allow_file_is_read_line_by_line(tmp_path):
    file = tmp_path / "allow.txt"
    file.write_text(
        "# friends\n"
        "\n"
        "192.0.2.0/24   # their network\n"
        "2001:db8::7\n"
        "  .partner.example\n"
        "Mail.Friend.example\r\n"
        "list@acme123.com # takes everything\n"
        "@all.example\n"
        "office@"
    )
    allow = loaded(f"[allow]\nfiles = ['{file}']\n").policy.allow
    assert allow.client(ip_address("192.0.2.255"), None) is Exemption.NETWORK
    assert allow.client(ip_address("192.0.3.0"), None) is None
    assert allow.client(ip_address("2001:db8::7"), None) is Exemption.NETWORK
    assert allow.client(ip_address("2001:db8::8"), None) is None
    assert allow.client(ip_address("203.0.113.1"), "a.partner.example") is Exemption.HOST
    assert allow.client(ip_address("203.0.113.1"), "mail.friend.example") is Exemption.HOST
    assert allow.client(ip_address("203.0.113.1"), "friend.example") is None
    assert all(map(allow.recipient, ("list@acme123.com", "any@all.example", "office@any.example", "postmaster@any.example")))
    assert not allow.recipient("other@acme123.com")


def test_bad_lines_of_allow_files_are_told_with_their_numbers(tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("192.0.2.0/24\n\n# comment\n192.0.2.0/33 # too long\nlocalhost\n")
    second.write_text("two words@example.org\n192.0.2.1/24\n")
    assert faults(f"[allow]\nfiles = ['{first}', '{second}']\n") == [
        f"allow.files[0]: '{first}', line 4: '192.0.2.0/33': {NETWORK}",
        f"allow.files[0]: '{first}', line 5: 'localhost': {HOST}",
        f"allow.files[1]: '{second}', line 1: 'two words@example.org': {RECIPIENT}",
        f"allow.files[1]: '{second}', line 2: '192.0.2.1/24': has bits set beyond its prefix; did you mean 192.0.2.0/24?",
    ]


def test_allow_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    names = f"'{tmp_path}/missing', '{tmp_path}', '{tmp_path}/latin', '/dev/zero'"
    assert faults(f'[allow]\nfiles = [{names}, "\\u0000"]\n') == [
        f"allow.files[0]: '{tmp_path}/missing': cannot be read: No such file or directory",
        f"allow.files[1]: '{tmp_path}': cannot be read: Is a directory",
        f"allow.files[2]: '{tmp_path}/latin': is not UTF-8 text (byte 4)",
        "allow.files[3]: '/dev/zero': is larger than 64 MiB",
        "allow.files[4]: '\\x00': embedded null byte",
    ]


def test_a_hundred_thousand_lines_are_read_in_no_time(tmp_path):
    file = tmp_path / "allow.txt"
    file.write_text("".join(f"10.{number >> 8 & 255}.{number & 255}.{number >> 16}\n" for number in range(100_000)))
    allow = loaded(f"[allow]\nfiles = ['{file}']\n").policy.allow
    assert allow.client(ip_address("10.134.159.1"), None) is Exemption.NETWORK
    assert allow.client(ip_address("10.134.160.1"), None) is None


# --- what a good file becomes


def contract_texts() -> list[str]:
    """Return the contract's example, from the contract itself where it is at hand, and as written here by hand."""
    texts = [(FILES / "contract.toml").read_text("utf-8")]
    if CONTRACT.exists():
        (block,) = re.findall(r"^```toml\n(.*?)^```$", CONTRACT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        texts.append(block)
    return texts


@pytest.mark.parametrize("text", contract_texts())
def test_the_contracts_example_becomes_exactly_its_policy(tmp_path, text):
    allowed = tmp_path / "allow.txt"
    allowed.write_text("203.0.113.0/24\n.customer.example\nsales@acme123.com\n")
    assert "/etc/dnsbl-milter/allow.txt" in text
    configuration = parse(text.replace("/etc/dnsbl-milter/allow.txt", str(allowed)), "f.toml")
    policy = configuration.policy
    spamcop, zen, dnswl, new = policy.lists

    assert (spamcop.name, spamcop.zone, spamcop.rules) == ("spamcop", "bl.spamcop.net", (rule(400),))
    assert (spamcop.group, spamcop.observe, spamcop.timeout) == (None, False, None)
    assert (zen.name, zen.zone, zen.group) == ("zen", "zen.spamhaus.org", "spamhaus")
    assert zen.rules == (
        rule(500, "127.0.0.2", "SBL"),
        rule(500, "127.0.0.[4..7]", "XBL"),
        rule(300, "127.0.0.[10;11]", "PBL"),
    )
    assert (zen.ipv4, zen.ipv6) == (True, True)
    assert zen.url == "https://check.spamhaus.org/query/ip/{client}"
    assert (dnswl.name, dnswl.zone) == ("dnswl", "list.dnswl.org")
    assert dnswl.rules == (rule(-400, "127.0.[0..255].[1..3]", "trusted"),)
    assert (new.name, new.zone, new.rules, new.observe) == ("new-list", "bl.example.net", (rule(300),), True)
    assert (new.ipv4, new.ipv6, new.url) == (True, None, "")

    assert policy.caps == {"spamhaus": 700}
    assert policy.tiers.thresholds == ((300, Action.TAG), (600, Action.DEFER), (800, Action.QUARANTINE))
    assert policy.enforce is True

    exempt = policy.allow.client
    assert exempt(ip_address("192.168.0.7"), None) is Exemption.NETWORK
    assert exempt(ip_address("2001:db8:1::7"), None) is Exemption.NETWORK
    assert exempt(ip_address("203.0.113.7"), None) is Exemption.NETWORK
    assert exempt(ip_address("198.51.100.7"), "mail.friend.example") is Exemption.HOST
    assert exempt(ip_address("198.51.100.7"), "mx.partner.example") is Exemption.HOST
    assert exempt(ip_address("198.51.100.7"), "mx.customer.example") is Exemption.HOST
    assert exempt(ip_address("198.51.100.7"), "friend.example") is None
    assert exempt(ip_address("192.168.1.7"), None) is None
    allowed_names = ("postmaster@acme123.com", "abuse@x.example", "list@acme123.com", "sales@acme123.com")
    assert all(map(policy.allow.recipient, allowed_names))
    assert not policy.allow.recipient("info@acme123.com")
    assert policy.allow.authenticated is True

    assert str(configuration.endpoint) == "local:/run/dnsbl-milter/milter.sock"
    assert configuration.endpoint.family is socket.AF_UNIX
    assert configuration.nameservers == (Nameserver(ip_address("127.0.0.1"), 53),)
    assert configuration.zones == {
        "spamcop": "bl.spamcop.net", "zen": "zen.spamhaus.org", "dnswl": "list.dnswl.org", "new-list": "bl.example.net",
    }  # fmt: skip
    assert configuration.warnings == ()
    shown = configuration.settings.model_dump()
    assert shown["milter"] == {
        "socket": "local:/run/dnsbl-milter/milter.sock", "socket_mode": "0660", "workers": 2, "drain_seconds": 30.0,
    }  # fmt: skip
    assert shown["dns"] == {"nameservers": ["127.0.0.1"], "deadline": 2.0, "retry": 0.7}
    assert shown["cache"] == {"clients": 100_000, "min_ttl": 60, "max_ttl": 3600, "error_ttl": 30}
    assert shown["headers"] == {"add": "tagged"}
    assert shown["memory"] == {
        "url": "sqlite:///var/lib/dnsbl-milter/memory.db",
        "delay": 300,
        "window": 172_800,
        "remember": 3_024_000,
        "password_file": "",
    }
    assert shown["metrics"] == {"listen": "127.0.0.1:10782"}
    assert shown["log"] == {"format": "logfmt", "level": "info"}
    assert shown["health"] == {"interval": 300, "proof": True, "enabled": True}


def test_every_key_is_taken_at_its_word():
    configuration = load(FILES / "every-key.toml")
    settings, policy = configuration.settings, configuration.policy
    assert (configuration.endpoint.family, configuration.endpoint.host, configuration.endpoint.port) == (socket.AF_INET6, "::1", 8891)
    assert (settings.milter.socket_mode, settings.milter.workers, settings.milter.drain_seconds) == ("640", 3, 2.5)
    assert configuration.nameservers == (Nameserver(ip_address("192.0.2.53")), Nameserver(ip_address("2001:db8::53"), 5353))
    assert (settings.dns.deadline, settings.dns.retry) == (1, 0.25)
    assert (settings.cache.clients, settings.cache.min_ttl, settings.cache.max_ttl, settings.cache.error_ttl) == (5, 0, 1, 300)
    assert policy.tiers.thresholds == (
        (1, Action.TAG), (100, Action.DEFER), (250, Action.QUARANTINE), (250, Action.REJECT), (100_000, Action.DISCARD),
    )  # fmt: skip
    assert policy.enforce is False
    assert settings.headers.add == "never"
    assert policy.allow.client(ip_address("192.0.2.1"), None) is Exemption.NETWORK
    assert policy.allow.client(ip_address("198.51.100.7"), "mx.EXAMPLE.com") is Exemption.HOST
    assert policy.allow.recipient("sales@example.com")
    assert not policy.allow.recipient("postmaster@example.com")
    assert policy.allow.authenticated is False
    assert settings.memory.url == "rediss://user:hidden-password@memory.example:6380/1"
    assert (settings.memory.delay, settings.memory.window, settings.memory.remember) == (0, 1, 2)
    assert settings.memory.password_file == "/run/credentials/memory"
    assert settings.metrics.listen == ""
    assert (settings.log.format, settings.log.level) == ("json", "error")
    assert (settings.health.interval, settings.health.proof, settings.health.enabled) == (1, False, False)
    one, dead = policy.lists
    assert one == DnsList(
        name="One.of_these+those/-",
        zone="bl.example.net",
        rules=(rule(-50), rule(50, "127.0.0.0/28", "network"), rule(25, "&0.0.0.8")),
        group="first",
        observe=True,
        ipv4=False,
        ipv6=True,
        timeout=0.5,
        url="https://bl.example.net/look?up={client}",
        expect=Expect("127.0.10.0", "127.130.0.0/16"),
    )
    assert (dead.name, dead.zone, dead.rules) == ("cbl.abuseat.org", "cbl.abuseat.org", (rule(100),))
    assert policy.caps == {"first": 1}
    expected = [section.expect for section in settings.list]
    assert (expected[0].listed, expected[0].clear) == ("127.0.10.0", "127.130.0.0/16")
    assert (expected[1].listed, expected[1].clear) == ("none", "none")
    assert (expected[2].listed, expected[2].clear) == (None, None)
    assert settings.list[0].scope == "net24"


def test_defaults(monkeypatch):
    monkeypatch.setattr(settings_module.os, "cpu_count", lambda: 64)
    settings = parse("[milter]\n", "f.toml").settings
    assert settings.milter.model_dump() == {
        "socket": "local:/run/dnsbl-milter/milter.sock", "socket_mode": "0660", "workers": 4, "drain_seconds": 30,
    }  # fmt: skip
    assert settings.dns.model_dump() == {"nameservers": [], "deadline": 2.0, "retry": 0.7}
    assert settings.cache.model_dump() == {"clients": 100_000, "min_ttl": 60, "max_ttl": 3600, "error_ttl": 30}
    assert settings.actions.model_dump() == {
        "tag": None, "defer": None, "quarantine": None, "reject": None, "discard": None, "mode": "enforce",
    }  # fmt: skip
    assert settings.headers.add == "tagged"
    assert settings.allow.model_dump() == {
        "networks": [], "hosts": [], "recipients": ["postmaster@", "abuse@"], "authenticated": True, "files": [],
    }  # fmt: skip
    assert settings.memory.url == "sqlite:///var/lib/dnsbl-milter/memory.db"
    assert (settings.memory.delay, settings.memory.window, settings.memory.remember) == (300, 172_800, 3_024_000)
    assert settings.metrics.listen == "127.0.0.1:10782"
    assert (settings.log.format, settings.log.level) == ("logfmt", "info")
    assert (settings.health.interval, settings.health.proof, settings.health.enabled) == (300, True, True)
    assert settings.groups == {}
    one = one_list(LIST + "weight = 4.35\n")
    assert one == DnsList("one", "bl.example.net", (rule(435),), None, observe=False, ipv4=True, ipv6=None, timeout=None, url="")


@pytest.mark.parametrize(("processors", "workers"), [(1, 1), (3, 3), (4, 4), (5, 4), (None, 1)])
def test_as_many_workers_as_processors_but_at_most_four(monkeypatch, processors, workers):
    monkeypatch.setattr(settings_module.os, "cpu_count", lambda: processors)
    assert parse("[milter]\n", "f.toml").settings.milter.workers == workers


def test_without_nameservers_the_systems_are_asked(monkeypatch):
    system = (Nameserver(ip_address("192.0.2.53")),)
    monkeypatch.setattr(module, "system_nameservers", lambda: system)
    assert parse(LIST + "weight = 1", "f.toml").nameservers == system
    assert loaded(LIST + "weight = 1").nameservers == (Nameserver(ip_address("127.0.0.1")),)


def test_without_any_nameserver(monkeypatch):
    def none() -> None:
        raise ValueError("/etc/resolv.conf names no nameserver; name one here")

    monkeypatch.setattr(module, "system_nameservers", none)
    assert faults(LIST + "weight = 1") == ["dns.nameservers: /etc/resolv.conf names no nameserver; name one here"]
    assert faults(LIST + "weight = 1\n[dns]\nnameservers = ['x']") == [f"dns.nameservers[0]: 'x': {SERVER}"]
    assert parse("", "f.toml").nameservers == ()


# --- the catalog


@pytest.mark.parametrize("known", [one for one in catalog().lists if one.ipv4 or one.ipv6], ids=lambda known: known.name)
def test_a_zone_alone_is_filled_in_by_the_catalog(known):
    one = one_list(f"[[list]]\nzone = '{known.zone}'\n")
    assert one.name == known.zone
    assert (one.ipv4, one.ipv6, one.url) == (known.ipv4, known.ipv6, known.url)
    assert (one.expect.listed, one.expect.clear) == (known.expect.listed, known.expect.clear)
    if known.weight is None:
        assert one.rules == tuple(rule(code.weight, code.match, code.label) for code in known.codes)
    else:
        assert one.rules == (rule(known.weight),)


@pytest.mark.parametrize("grave", catalog().dead, ids=lambda grave: grave.zone)
def test_a_dead_zone_is_refused_and_so_is_what_lies_below(grave):
    for zone in grave.zone, f"dnsbl.{grave.zone}":
        (message,) = faults(f"[[list]]\nzone = '{zone}'\nweight = 1\n")
        assert message == (
            f"list[0].zone (list '{zone}'): {zone} is dead: {grave.what} ({grave.when}); "
            "remove the list, or set allow_dead = true"
        )
        assert one_list(f"[[list]]\nzone = '{zone}'\nweight = 1\nallow_dead = true\n").zone == zone


@pytest.mark.parametrize(("zone", "scope", "weights"), [
    ("psbl.surriel.com", "ip", [250]),
    ("psbl.surriel.com", "dynamic", [250]),
    ("psbl.surriel.com", "net24", [125]),
    ("psbl.surriel.com", "asn", [62]),
    ("dnsbl-2.uceprotect.net", "ip", [75]),
    ("dnsbl-2.uceprotect.net", "net24", [75]),
    ("dnsbl-2.uceprotect.net", "asn", [37]),
    ("dnsbl-3.uceprotect.net", "net24", [25]),
    ("bl.blocklist.de", "net24", [75]),
    ("wl.mailspike.net", "net24", [-25, -50, -100]),
])  # fmt: skip
def test_a_list_that_is_about_more_than_the_sender_weighs_less(zone, scope, weights):
    one = one_list(f"[[list]]\nzone = '{zone}'\nscope = '{scope}'\n")
    assert [each.weight for each in one.rules] == weights


def test_what_is_weighed_by_hand_is_not_lowered():
    assert one_list("[[list]]\nzone = 'psbl.surriel.com'\nscope = 'asn'\nweight = 2\n").rules == (rule(200),)
    assert one_list("[[list]]\nzone = 'bl.example.net'\nscope = 'asn'\nweight = 2\n").rules == (rule(200),)


def test_what_the_file_says_goes_before_the_catalog():
    one = one_list("[[list]]\nzone = 'zen.spamhaus.org'\nweight = 2\nipv6 = false\nurl = 'https://example.net/'\n")
    assert (one.rules, one.ipv4, one.ipv6, one.url) == ((rule(200),), True, False, "https://example.net/")
    one = one_list("[[list]]\nzone = 'zen.spamhaus.org'\ncodes = [{ match = '127.0.0.2', weight = 2 }]\n")
    assert one.rules == (rule(200, "127.0.0.2"),)
    assert one.ipv6 is True


def test_a_bare_weight_goes_before_the_codes():
    one = one_list(LIST + "weight = 1\ncodes = [{ match = '127.0.0.2', weight = 2, label = 'bad' }]\n")
    assert one.rules == (rule(100), rule(200, "127.0.0.2", "bad"))


# --- secrets

SECRET = "topsecretkey"
HIDING = [
    # a configuration with the key in it, and the zone and the name that people see
    (f"[[list]]\nzone = '{SECRET}.zen.dq.spamhaus.net'\n", "{key}.zen.dq.spamhaus.net", "zen"),
    (f"[[list]]\nzone = '{SECRET.upper()}.ZEN.dq.spamhaus.net.'\n", "{key}.zen.dq.spamhaus.net", "zen"),
    (f"[[list]]\nzone = '{SECRET}.combined.mail.abusix.zone'\n", "{key}.combined.mail.abusix.zone", "abusix"),
    # The operator gives each subscriber a zone, so this holds for those that the catalog does not know.
    (f"[[list]]\nzone = '{SECRET}.authbl.dq.spamhaus.net'\nweight = 1\n", "{key}.authbl.dq.spamhaus.net", "authbl.dq.spamhaus.net"),
    (f"[[list]]\nzone = 'x.{SECRET}.zen.dq.spamhaus.net'\nweight = 1\n", "{key}.zen.dq.spamhaus.net", "zen.dq.spamhaus.net"),
    ("[[list]]\nzone = '{key}.zen.dq.spamhaus.net'\nkey_file = 'FILE'\n", "{key}.zen.dq.spamhaus.net", "zen"),
    ("[[list]]\nzone = '{key}.bl.example.net'\nweight = 1\nkey_file = 'FILE'\n", "{key}.bl.example.net", "bl.example.net"),
    ("[[list]]\nname = 'paid'\nzone = '{key}.bl.example.net'\nweight = 1\nkey_file = 'FILE'\n", "{key}.bl.example.net", "paid"),
    ("[[list]]\nzone = 'bl.{key}.example.net'\nweight = 1\nkey_file = 'FILE'\n", "bl.{key}.example.net", "bl.example.net"),
]  # fmt: skip


def run(*arguments: str | Path) -> str:
    """Return what a command prints, on either stream."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


@pytest.mark.parametrize(("text", "zone", "name"), HIDING)
def test_a_key_is_shown_nowhere(tmp_path, text, zone, name):
    (tmp_path / "key").write_text(SECRET + "\n")
    file = tmp_path / "keyed.toml"
    file.write_text(text.replace("FILE", str(tmp_path / "key")) + f"[actions]\ntag = 1\n{NAMESERVER}")
    configuration = load(file)
    assert SECRET in configuration.policy.lists[0].zone.lower()
    assert configuration.zones == {name: zone}
    assert configuration.policy.lists[0].name == name
    shown = [
        repr(configuration),
        str(configuration.settings),
        json.dumps(shown_settings(configuration)),
        run("config", "show", "--config", file),
        run("config", "show", "--json", "--config", file),
        run("config", "check", "--config", file),
    ]
    assert SECRET not in "\n".join(shown).lower()


@pytest.mark.parametrize(("text", "zone", "name"), HIDING)
def test_a_key_is_in_no_message(tmp_path, text, zone, name):
    (tmp_path / "key").write_text(SECRET + "\n")
    text = text.replace("FILE", str(tmp_path / "key"))
    faulty = [
        text + text,
        text + "group = 'none'\n",
        text + "timeout = 0\n",
        text + "unknown = 1\n",
        text + "scope = 'name'\n",
        text.replace("zone = '", "zone = '.").replace("weight", "codes"),
        text.replace("zone = '", "zone = ['").replace("'\n", "']\n", 1),
        text.replace("zone =", "zon ="),
        "[[list]]\nname = 'zen'\nzone = 'other.example.net'\nweight = 1\n" + text.replace("paid", "zen") + "name = 'zen'\n" * ("name" not in text),
    ]  # fmt: skip
    for each in faulty:
        assert SECRET not in "\n".join(faults(each)).lower()


def test_a_password_is_shown_nowhere(tmp_path):
    file = FILES / "every-key.toml"
    configuration = load(file)
    shown = [repr(configuration), run("config", "show", "--config", file), run("config", "show", "--json", "--config", file)]
    assert "hidden" not in "".join(shown)
    assert shown_settings(configuration)["memory"]["url"] == "rediss://***@memory.example:6380/1"
    assert "hidden" not in "".join(faults("[memory]\nurl = 'redis//:hidden@host'\n"))
    assert "hidden" not in "".join(faults("[memory]\nurl = ['redis://:hidden@host']\n"))


# --- config show


def test_what_is_shown_is_a_configuration_that_says_the_same(tmp_path):
    allowed = tmp_path / 'with "quotes" é 😀 \x7f'
    allowed.write_text("203.0.113.0/24\n")
    text = (FILES / "contract.toml").read_text("utf-8") + "[[list]]\nzone = 'psbl.surriel.com'\n"
    file = tmp_path / "f.toml"
    file.write_text(text.replace('"/etc/dnsbl-milter/allow.txt"', f"'''{allowed}'''".replace("\x7f", "")))
    allowed.rename(tmp_path / allowed.name.replace("\x7f", ""))
    first = load(file)
    shown = run("config", "show", "--config", file)
    assert shown.startswith(f"# {file}\n")
    second = parse(shown, "shown")
    assert second.policy.tiers == first.policy.tiers
    assert second.policy.allow == first.policy.allow
    assert second.policy.caps == first.policy.caps
    for before, after in zip(first.policy.lists, second.policy.lists, strict=True):
        assert (after.name, after.zone, after.group, after.observe) == (before.name, before.zone, before.group, before.observe)
        assert (after.ipv4, after.ipv6, after.url, after.timeout) == (before.ipv4, before.ipv6, before.url, before.timeout)
        assert [(each.weight, each.label) for each in after.rules] == [(each.weight, each.label) for each in before.rules]
        assert [each.pattern.text for each in after.rules] == [each.pattern.text if each.pattern else "127.0.0.0/8" for each in before.rules]
    assert second.settings.model_dump(exclude={"list"}) == first.settings.model_dump(exclude={"list"})


def test_defaults_and_the_catalog_are_filled_in_where_it_is_shown():
    known = next(one for one in catalog().lists if one.weight is not None)
    excused = next(one for one in catalog().lists if one.expect.clear and one.weight is None)
    zones = f"[[list]]\nzone = '{known.zone}'\n[[list]]\nzone = 'off.example'\nenabled = false\nweight = 2\n[[list]]\nzone = '{excused.zone}'\n"
    configuration = loaded(zones)
    shown = shown_settings(configuration)
    assert shown["cache"]["clients"] == 100_000
    assert shown["dns"]["nameservers"] == ["127.0.0.1"]
    listed, off, other = shown["list"]
    assert other["expect"] == {"listed": excused.expect.listed, "clear": excused.expect.clear}
    assert (listed["name"], listed["ipv4"], listed["ipv6"], listed["url"]) == (known.zone, known.ipv4, known.ipv6, known.url)
    assert listed["codes"] == [{"match": "127.0.0.0/8", "weight": known.weight / 100, "label": None}]
    assert listed["weight"] is None
    assert (off["name"], off["enabled"], off["weight"], off["codes"]) == ("off.example", False, 2, [])


# --- warnings

TWO = "[[list]]\nname = 'a'\nzone = 'a.example.net'\nweight = 3\n[[list]]\nname = 'b'\nzone = 'b.example.net'\nweight = 2\n"
WARNINGS = [
    (TWO, ["actions: no action has a threshold, so every client is accepted"]),
    ("[actions]\ntag = 3\n", ["list: there is no list, so every client is accepted"]),
    (TWO + "[actions]\ntag = 3\ndefer = 5\n", []),
    (TWO + "[actions]\ntag = 3\ndefer = 5.01\nreject = 6\n", [
        "actions.defer: no sum of the lists' weights reaches it",
        "actions.reject: no sum of the lists' weights reaches it",
        "list 'b' can never matter: no action changes by it, whatever the other lists say",
    ]),
    (TWO + "[actions]\ntag = 3\n", ["list 'b' can never matter: no action changes by it, whatever the other lists say"]),
    (TWO.replace("weight = 2", "weight = 0") + "[actions]\ntag = 3\n", ["list 'b' can never matter: no action changes by it, whatever the other lists say"]),
    (TWO.replace("weight = 2", "weight = -1") + "[actions]\ntag = 3\n", []),
    # One on observation is not meant to matter.
    (TWO + "observe = true\n[actions]\ntag = 3\n", []),
    # The cap keeps the sum of both below what deferring takes.
    (
        (TWO + "[actions]\ntag = 3\ndefer = 5\n").replace("weight", "group = 'g'\nweight") + "[groups]\ng = { cap = 4 }\n",
        [
            "actions.defer: no sum of the lists' weights reaches it",
            "list 'b' can never matter: no action changes by it, whatever the other lists say",
        ],
    ),
    (TWO + '[actions]\ntag = 2\ndefer = 5\n[groups]\nempty = { cap = 1 }\n"two\\nlines" = { cap = 1 }\n', [
        "groups.empty: no list belongs to it",
        'groups."two\\nlines": no list belongs to it',
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "warnings"), WARNINGS)
def test_warnings(text, warnings):
    assert list(loaded(text).warnings) == warnings


def test_sixty_lists_are_loaded_in_no_time():
    text = "".join(f"[[list]]\nname = 'l{number}'\nzone = 'l{number}.example.net'\nweight = {1 + number / 7:.2f}\ngroup = 'g{number % 3}'\n" for number in range(60))
    text += "[actions]\ntag = 3\ndefer = 6\nreject = 9\n[groups]\n" + "".join(f"g{number} = {{ cap = 9 }}\n" for number in range(3))
    assert len(loaded(text).policy.lists) == 60


# --- the files of contrib, and the schema


def test_every_configuration_in_contrib_loads():
    for file in sorted((ROOT / "contrib").rglob("*.toml")):
        load(file)


def fits(value: object, schema: dict, root: dict) -> bool:
    """Tell whether a value fits a JSON Schema, of which this knows what ours use and nothing else (draft 2020-12)."""
    known = {
        "$defs", "$ref", "additionalProperties", "anyOf", "default", "description", "enum", "items", "maximum",
        "minimum", "properties", "required", "title", "type",
    }  # fmt: skip
    assert set(schema) <= known
    if "$ref" in schema:
        step, name = schema["$ref"].rsplit("/", 1)
        assert step == "#/$defs"
        return fits(value, root["$defs"][name], root)
    if "anyOf" in schema:
        return any(fits(value, each, root) for each in schema["anyOf"])
    kinds = {
        "string": str, "integer": int, "number": int | float, "boolean": bool, "array": list, "object": dict, "null": type(None),
    }  # fmt: skip
    if not isinstance(value, kinds[schema["type"]]) or isinstance(value, bool) != (schema["type"] == "boolean"):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if isinstance(value, list):
        return all(fits(item, schema["items"], root) for item in value)
    if isinstance(value, dict):
        others = schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= set(value) and all(
            fits(item, schema["properties"][key], root)
            if key in schema.get("properties", {})
            else others is not False and (others is True or fits(item, others, root))
            for key, item in value.items()
        )
    return True


def test_settings_schema():
    schema = json.loads(run("config", "schema"))
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == [*TABLES, "list", "groups"]
    for name in "contract.toml", "every-key.toml":
        document = module.tomllib.loads((FILES / name).read_text("utf-8"))
        assert fits(document, schema, schema)
        shown = json.loads(json.dumps(document))
        for table in TABLES:
            assert not fits(shown | {table: 3}, schema, schema)
            assert not fits(shown | {table: {"unknown": 3}}, schema, schema)
    for wrong in (
        {"list": {}},
        {"list": [{"name": "without a zone"}]},
        {"list": [{"zone": "bl.example.net", "codes": [{"match": "127.0.0.2"}]}]},
        {"groups": {"a": {}}},
        {"milter": {"workers": 0}},
        {"milter": {"workers": 65}},
        {"milter": {"workers": "2"}},
        {"actions": {"mode": "watch"}},
        {"lists": []},
    ):
        assert not fits(wrong, schema, schema)


def test_every_key_says_what_it_is_for_where_a_program_reads_it():
    tables = [json.loads(run("config", "schema")), *json.loads(run("config", "schema"))["$defs"].values()]
    assert all(table.get("description") for table in tables)
