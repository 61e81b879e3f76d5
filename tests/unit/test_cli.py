"""The command line: help, exit statuses, what goes to which stream, and never a traceback."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dnsbl_milter import __version__
from dnsbl_milter import configuration as configuration_module
from dnsbl_milter.cli import main
from dnsbl_milter.nameserver import Nameserver

ROOT = Path(__file__).parents[2]
FAULTY = Path(__file__).parent / "configurations" / "ten-faults.toml"
NO_LISTS = 'memory.url = ""\n'
# Two lists that are not asked, so that nothing here needs a name server.
OFF = """
memory.url = ""
dns.nameservers = ["127.0.0.1"]
list = [
    { name = "one", zone = "one.example.net", weight = 1, enabled = false },
    { name = "a-list-with-a-very-long-name-for-a-narrow-terminal", zone = "two.example.net", weight = 1, enabled = false },
]
"""


def walk(command: click.Command, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield names, command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from walk(each, *names, name)


COMMANDS = list(walk(main))
LEAVES = [(names, command) for names, command in COMMANDS if not isinstance(command, click.Group)]


def named(commands: list) -> list[str]:
    return [" ".join(names) or "-" for names, _ in commands]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result


def python(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the program as an administrator does."""
    return subprocess.run(
        [sys.executable, "-m", "dnsbl_milter", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'policy'}:{ROOT / 'milter'}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))


@pytest.fixture
def file(tmp_path):
    """Write a configuration, and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "f.toml"
        path.write_text(text)
        return path

    return write


# --- help and usage


@pytest.mark.parametrize(("names", "command"), COMMANDS, ids=named(COMMANDS))
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(names, command, option):
    result = run(*names, option)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(" ".join(("Usage: main", *names)))
    assert command.help
    assert command.help.splitlines()[0].endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.help.endswith(".")


@pytest.mark.parametrize("name", ["run", "explain", "config", "pause", "resume", "memory", "import"])
def test_the_contracts_commands_are_there(name):
    assert name in main.commands
    assert set(main.commands["config"].commands) == {"check", "show", "schema"}


@pytest.mark.parametrize(("names", "command"), LEAVES, ids=named(LEAVES))
def test_every_command_that_needs_a_configuration_takes_one(names, command):
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("--config" in options) != (names in {("config", "schema"), ("import", "sendmail")})


def test_the_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"dnsbl-milter, version {__version__}\n")


USAGE = [
    # arguments, part of the message
    ((), "Usage: main"),
    (("config",), "Usage: main config"),
    (("nonsense",), "'nonsense'"),
    (("--nonsense",), "--nonsense"),
    (("config", "nonsense"), "'nonsense'"),
    (("run", "nonsense"), "(nonsense)"),
    (("run", "--config"), "--config"),
    (("explain",), "ADDRESS"),
    (("explain", "192.0.2.1", "192.0.2.2"), "(192.0.2.2)"),
    (("config", "check", "--json"), "--json"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_wrong_usage_is_status_2_on_stderr(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


ADDRESSES = ["", "nonsense", "192.0.2", "192.0.2.256", "192.0.2.1/32", "mail.example.org", "2001:db8::g", "\x1b[31m", "größe"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("names", [("explain",), ("memory", "show"), ("memory", "forget")])
def test_a_bad_address(file, names, address):
    result = run(*names, "--config", file(NO_LISTS), "--", address)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"Invalid value for ADDRESS: {address!r} is no IPv4 or IPv6 address\n")


# --- configurations that cannot be used

TAKING = [(names, command) for names, command in LEAVES if any("--config" in parameter.opts for parameter in command.params)]
ARGUMENTS = {"explain": ["192.0.2.1"], "memory show": ["192.0.2.1"], "memory forget": ["192.0.2.1"], "pause": ["one"], "resume": ["one"]}


@pytest.mark.parametrize(("names", "command"), TAKING, ids=named(TAKING))
def test_a_configuration_that_cannot_be_used(tmp_path, names, command):
    arguments = ARGUMENTS.get(" ".join(names), [])
    unusable = {
        tmp_path / "missing.toml": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        tmp_path / "latin.toml": "is not UTF-8 text (byte 1)",
        tmp_path / "broken.toml": "is not TOML: Expected '=' after a key in a key/value pair (at end of document)",
    }
    (tmp_path / "latin.toml").write_bytes(b"\xe9")
    (tmp_path / "broken.toml").write_text("broken")
    for path, message in unusable.items():
        result = run(*names, *arguments, "--config", path)
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"{path}: {message}\n")
    result = run(*names, *arguments, "--config", FAULTY)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 10
    assert all(line.startswith(f"{FAULTY}: ") for line in result.stderr.splitlines())


# --- config


def test_config_check(file):
    path = file(OFF.replace("weight = 1, enabled = false }", "weight = 1 }", 1) + "actions.tag = 1\n")
    result = run("config", "check", "--config", path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: fine, lists: 1\n", "")


def test_config_check_warns_on_stderr(file):
    path = file(NO_LISTS + "groups.a = { cap = 1 }\n")
    result = run("config", "check", "--config", path)
    assert (result.exit_code, result.stdout) == (0, f"{path}: fine, lists: 0\n")
    assert result.stderr == f"warning: {path}: list: there is no list, so every client is accepted\n"


def test_without_a_file_the_packaged_policy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(configuration_module, "DEFAULT_PATH", tmp_path / "none.toml")
    monkeypatch.setattr(configuration_module, "system_nameservers", lambda: (Nameserver(ip_address("192.0.2.53")),))
    packaged = f"the packaged default policy ({tmp_path}/none.toml does not exist)"
    assert run("config", "check").stdout == f"{packaged}: fine, lists: 9\n"
    assert run("config", "show").stdout.startswith(f"# {packaged}\n")


def test_config_show(file):
    path = file(OFF)
    result = run("config", "show", "--config", path)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"# {path}"
    assert lines[1:4] == ["", "[milter]", 'socket = "local:/run/dnsbl-milter/milter.sock"']
    for line in ('nameservers = ["127.0.0.1"]', "clients = 100000", "retry = 0.7", "authenticated = true", 'url = ""'):
        assert line in lines
    assert lines.count("[[list]]") == 2
    # What has no value is left out.
    assert not [line for line in lines if line.startswith(("tag ", "group ", "null"))]


def test_config_show_as_json(file):
    document = json.loads(run("config", "show", "--json", "--config", file(OFF)).stdout)
    assert document["dns"]["nameservers"] == ["127.0.0.1"]
    assert document["actions"]["tag"] is None
    assert [each["name"] for each in document["list"]] == ["one", "a-list-with-a-very-long-name-for-a-narrow-terminal"]


# --- one JSON document and nothing else

WITH_JSON = [(names, command) for names, command in LEAVES if any("--json" in parameter.opts for parameter in command.params)]


def test_the_contracts_commands_print_json():
    assert {" ".join(names) for names, _ in WITH_JSON} >= {"config show", "explain"}


@pytest.mark.parametrize(("names", "command"), WITH_JSON, ids=named(WITH_JSON))
def test_json_is_one_document_and_nothing_else(tmp_path, file, names, command):
    path = file(OFF.replace('url = ""', f'url = "sqlite://{tmp_path}/memory.db"'))
    result = run(*names, *ARGUMENTS.get(" ".join(names), []), "--json", "--config", path)
    if result.exit_code == 1 and not result.stdout:
        # What is not there cannot be shown, and the reason is no document.
        assert result.stderr
        return
    # A doctor may well find something in a configuration that nobody serves.
    assert result.exit_code == 0 or names == ("doctor",)
    assert result.stderr == ""
    assert json.loads(result.stdout)
    assert result.stdout.isascii()
    assert result.stdout.endswith("\n")


def test_the_schema_is_a_document_too():
    result = run("config", "schema")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["title"] == "Settings"


# --- terminals


def on_a_terminal(*arguments: object, columns: int = 100) -> str:
    """Return what the program writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    os.set_inheritable(theirs, True)
    with subprocess.Popen(
        [sys.executable, "-m", "dnsbl_milter", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'policy'}:{ROOT / 'milter'}", "COLUMNS": str(columns), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        written = b""
        while True:
            try:
                written += os.read(ours, 65536)
            except OSError:  # how the other end of a terminal says that it is gone
                break
        assert child.wait(10) == 0
    os.close(ours)
    return written.decode()


def test_a_table_on_a_terminal_has_lines_and_fits(file):
    written = on_a_terminal("explain", "192.0.2.1", "--config", file(OFF), columns=60)
    assert "╭" in written
    assert "\x1b[" in written
    assert "action    accept" in written
    plain = [line for line in written.splitlines() if line.startswith(("╭", "│", "╰"))]
    assert plain
    assert all(len(line) <= 60 + line.count("\x1b") * 10 for line in plain)


def test_a_table_elsewhere_has_none(file):
    done = python("explain", "192.0.2.1", "--config", file(OFF))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert done.stdout.replace("\n", " ").isprintable()
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[0] == "client    192.0.2.1"
    assert lines[1].split() == ["list", "state", "codes", "meaning", "weight", "ttl", "ms", "proof", "why"]
    assert lines[2].split() == ["one", "skipped", "not", "enabled"]
    assert lines[3].split() == ["a-list-with-a-very-long-name-for-a-narrow-terminal", "skipped", "not", "enabled"]


def test_json_on_a_terminal_is_plain_json(file):
    assert json.loads(on_a_terminal("explain", "192.0.2.1", "--json", "--config", file(OFF), columns=20))


# --- the program itself


def test_the_module_is_the_program(file):
    done = python("config", "check", "--config", file(NO_LISTS))
    assert done.returncode == 0
    assert done.stdout.endswith("fine, lists: 0\n")
    assert python("nonsense").returncode == 2
    assert python("--version").stdout == f"dnsbl-milter, version {__version__}\n"
    assert python("--help").stdout.startswith("Usage: python -m dnsbl_milter [OPTIONS] COMMAND")


def test_a_reader_that_leaves_early_is_no_fault(file):
    shell = f'"{sys.executable}" -m dnsbl_milter config schema | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["/bin/bash", "-c", shell],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'policy'}:{ROOT / 'milter'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_the_entry_point_is_the_same():
    text = (ROOT / "setup.cfg").read_text()
    assert "dnsbl-milter = dnsbl_milter.cli:main" in text


HOSTILE = ["\x1b[2J", "a\nb", "größe", "\udcff", "%s", "-" * 100, "x" * 10_000, "[red]", "{0}"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_arguments_are_no_traceback(file, text):
    path = file(OFF)
    for option in ("--host", "--helo", "--sender", "--recipient"):
        for more in ((), ("--json",)):
            result = run("explain", "192.0.2.1", f"{option}={text}", "--config", path, *more)
            assert result.exit_code == 0
    assert run("pause", "--config", path, "--", text).exit_code == 2
    assert run("config", "check", f"--config=/nowhere/{text}").exit_code == 2


def test_a_file_name_with_everything_in_it_is_no_traceback(file):
    done = python("config", "check", "--config", b"/nowhere/\xff\n".decode("utf-8", "surrogateescape"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
