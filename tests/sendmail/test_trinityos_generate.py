"""generate-cf: what it installs, what it keeps, and that nothing broken ever replaces what works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mailhost.trinityos import FILES

SCRIPT = FILES / "generate-cf"
TREE = Path("/usr/share/sendmail/cf")
FOLDER = Path("/run/mailhost/generate")

WORKING = """\
VERSIONID(`{name}')dnl
OSTYPE(`linux')dnl
define(`confSMTP_LOGIN_MSG', `$j {name}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
"""

Generate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder() -> Path:
    """Return a folder as /etc/mail is: of root, and below no folder that others may write in."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "sendmail.mc").write_text(WORKING.format(name="one"))
    return FOLDER


@pytest.fixture
def generate(folder: Path) -> Generate:
    def call(*arguments: str | Path, macros: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        if macros:
            (folder / "sendmail.mc").write_text(macros)
        argv = [SCRIPT, "--cf", folder / "sendmail.cf", *arguments]
        if not any(str(each).endswith(".mc") for each in arguments):
            argv.append(folder / "sendmail.mc")
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | changes)

    return call


def as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # A copy, for nobody may not be allowed to look into the checkout.
    script = shutil.copy(SCRIPT, FOLDER.with_name("generate-cf"))
    argv = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", script, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def seen(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything that a folder holds, hidden files too, as far as anybody could tell a difference."""
    found = {}
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[path.name] = (status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def greeting(path: Path) -> str:
    found = re.search(r"^O SmtpGreetingMessage=\$j (.*)$", path.read_text(), re.MULTILINE)
    assert found
    return found[1]


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("sendmail.cf.*"), key=lambda path: (len(path.name), path.name))


def test_the_first_file_is_installed(folder: Path, generate: Generate) -> None:
    done = generate()
    assert (done.returncode, done.stderr) == (0, "")
    assert greeting(folder / "sendmail.cf") == "one"
    assert (folder / "sendmail.cf").stat().st_mode & 0o7777 == 0o644
    assert "restart Sendmail" in done.stdout
    assert sorted(seen(folder)) == ["sendmail.cf", "sendmail.mc"]


def test_owner_and_mode_are_kept(folder: Path, generate: Generate) -> None:
    generate()
    live = folder / "sendmail.cf"
    os.chown(live, 8, 12)
    live.chmod(0o640)
    before = live.read_bytes()
    done = generate(macros=WORKING.format(name="two"))
    assert done.returncode == 0, done.stderr
    (kept,) = backups(folder)
    for path in (live, kept):
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (8, 12, 0o640)
    assert (greeting(live), kept.read_bytes()) == ("two", before)
    assert "  -O SmtpGreetingMessage=$j one\n  +O SmtpGreetingMessage=$j two\n" in done.stdout
    assert f"cp -p {kept} {live}" in done.stdout


def test_backups_never_overwrite_each_other(folder: Path, generate: Generate) -> None:
    names = ["one", "two", "three", "four"]
    for name in names:
        assert generate(macros=WORKING.format(name=name)).returncode == 0
    kept = backups(folder)
    assert [greeting(path) for path in kept] == names[:-1]
    assert all(re.fullmatch(r"sendmail\.cf\.\d{4}-\d\d-\d\d(\.\d+)?", path.name) for path in kept)
    assert len({path.stat().st_ino for path in (*kept, folder / "sendmail.cf")}) == len(names)


def test_where_there_are_no_links_copies_are_kept(folder: Path, generate: Generate) -> None:
    tools = folder.with_name("tools")
    shutil.rmtree(tools, ignore_errors=True)
    tools.mkdir()
    (tools / "ln").write_text("#!/bin/sh\nexit 1\n")
    (tools / "ln").chmod(0o755)
    for name in ("one", "two", "three"):
        done = generate(macros=WORKING.format(name=name), PATH=f"{tools}:{os.environ['PATH']}")
        assert done.returncode == 0, done.stderr
        (folder / "sendmail.cf").chmod(0o640)
    assert [greeting(path) for path in backups(folder)] == ["one", "two"]
    assert {path.stat().st_mode & 0o7777 for path in backups(folder)} == {0o640}


def test_the_same_file_again_changes_nothing(folder: Path, generate: Generate) -> None:
    generate()
    before = seen(folder)
    done = generate()
    assert (done.returncode, seen(folder)) == (0, before)
    assert "up to date" in done.stdout


def test_a_check_changes_nothing(folder: Path, generate: Generate) -> None:
    generate()
    before = seen(folder)
    done = generate("--check", macros=WORKING.format(name="two"))
    assert done.returncode == 0, done.stderr
    assert "+O SmtpGreetingMessage=$j two" in done.stdout
    assert {name: told for name, told in seen(folder).items() if name != "sendmail.mc"} == {
        name: told for name, told in before.items() if name != "sendmail.mc"
    }


def test_anybody_may_check(folder: Path) -> None:
    done = as_nobody("--check", "--cf", folder / "sendmail.cf", folder / "sendmail.mc")
    assert done.returncode == 0, done.stderr
    assert sorted(seen(folder)) == ["sendmail.mc"]


def test_a_link_stays_a_link(folder: Path, generate: Generate) -> None:
    generate()
    real = folder / "elsewhere" / "sendmail.cf"
    real.parent.mkdir()
    (folder / "sendmail.cf").rename(real)
    (folder / "sendmail.cf").symlink_to(real)
    assert generate(macros=WORKING.format(name="two")).returncode == 0
    assert (folder / "sendmail.cf").is_symlink()
    assert greeting(real) == "two"
    assert [greeting(path) for path in backups(real.parent)] == ["one"]


def test_a_warning_is_shown_and_hinders_nothing(folder: Path, generate: Generate) -> None:
    features = "OSTYPE(`linux')dnl\nFEATURE(`access_db')dnl\nFEATURE(`relay_mail_from')dnl\n"
    done = generate(macros=WORKING.format(name="two").replace("OSTYPE(`linux')dnl\n", features))
    assert done.returncode == 0, done.stderr
    assert "open\n\trelay" in done.stderr


# what is wrong, the .mc, what is said
BROKEN = (
    ("m4 cannot read it", "include(`/nowhere/at/all.m4')", "m4 cannot read"),
    ("a quote is open", "define(`confSMTP_LOGIN_MSG', `$j", "m4 cannot read"),
    ("no OSTYPE", "MAILER(`local')", "m4 finds errors"),
    ("an unknown feature", "OSTYPE(`linux')\nFEATURE(`no_such_feature')\nMAILER(`local')", "m4 cannot read"),
    ("a feature behind the mailers", WORKING + "FEATURE(`access_db')", "FEATURE() should be before MAILER()"),
    ("arguments that m4 cuts", "OSTYPE(`linux')\nFEATURE(`enhdnsbl', `z.example', `\"no, no\"')\nMAILER(`local')", "excess arguments"),
    ("a line that Sendmail does not know", WORKING + "LOCAL_CONFIG\nZZnonsense", "unknown configuration line"),
    ("an option that it does not know", WORKING + "LOCAL_CONFIG\nO NoSuchOption=1", "unknown option name"),
    ("a rule without a tab", WORKING + "LOCAL_RULESETS\nSLocal_check_mail\nR$* no tab", "invalid rewrite line"),
    ("a file that is not there", "OSTYPE(`linux')\ndefine(`confCW_FILE', `/nowhere/names')\nFEATURE(`use_cw_file')\nMAILER(`local')", "cannot open"),
    ("a milter's timeout", "OSTYPE(`linux')\nINPUT_MAIL_FILTER(`x', `S=local:/run/x, T=Q:1s')\nMAILER(`local')", "unknown filter timeout"),
    ("a map of no kind", WORKING + "LOCAL_CONFIG\nKmine nosuchtype /etc/mail/mine", "not available"),
)  # fmt: skip


@pytest.mark.parametrize(("macros", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["", "check"])
def test_a_broken_file_replaces_nothing(
    folder: Path, generate: Generate, macros: str, said: str, arguments: tuple[str, ...]
) -> None:
    generate()
    (folder / "sendmail.mc").write_text(f"{macros}\n")
    before = seen(folder)
    done = generate(*arguments)
    assert (done.returncode, seen(folder)) == (1, before)
    assert done.stderr.startswith("generate-cf: ")
    assert said in done.stderr
    assert "ADDRESS TEST MODE" not in done.stderr


def test_without_m4_it_says_so(folder: Path, generate: Generate) -> None:
    tools = folder.with_name("tools")
    shutil.rmtree(tools, ignore_errors=True)
    tools.mkdir()
    for name in ("bash", "env", "dirname", "sed", "mktemp", "rm", "readlink"):
        (tools / name).symlink_to(shutil.which(name) or "")
    done = generate(PATH=str(tools))
    assert done.returncode == 1
    assert "there is no m4: apt-get install m4" in done.stderr


def test_without_macros_it_says_so(folder: Path, generate: Generate) -> None:
    done = generate("--cf-tree", folder)
    assert done.returncode == 1
    assert f"{folder} has no m4/cf.m4" in done.stderr
    bare = on_a_machine(folder, "true")
    assert bare.returncode == 1
    assert "apt-get install sendmail-cf" in bare.stderr


def test_without_sendmail_it_says_so(generate: Generate) -> None:
    done = generate("--sendmail", "/nowhere/sendmail")
    assert done.returncode == 1
    assert "/nowhere/sendmail is not there" in done.stderr


def test_without_a_file_it_says_so(folder: Path, generate: Generate) -> None:
    done = generate(folder / "other.mc")
    assert done.returncode == 1
    assert f"{folder / 'other.mc'} cannot be read" in done.stderr


def test_without_permission_it_says_so_and_changes_nothing(folder: Path, generate: Generate) -> None:
    generate()
    (folder / "sendmail.mc").write_text(WORKING.format(name="two"))
    before = seen(folder)
    done = as_nobody("--cf", folder / "sendmail.cf", folder / "sendmail.mc")
    assert (done.returncode, seen(folder)) == (1, before)
    assert f"cannot write in {folder}: be root" in done.stderr
    assert "Permission denied" in done.stderr


# arguments, what is said
MISUSES = (
    (("--frobnicate",), "there is no option --frobnicate"),
    (("--cf",), "--cf needs a value"),
    (("one.mc", "two.mc"), "two.mc is the second"),
)


@pytest.mark.parametrize(("arguments", "said"), MISUSES)
def test_wrong_usage_is_told(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_help_names_every_option() -> None:
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)
    for option in ("--cf FILE", "--cf-tree FOLDER", "--sendmail FILE", "--check", "--help"):
        assert option in done.stdout


# layout, where its macros lie
LAYOUTS = (("Debian", "/usr/share/sendmail/cf"), ("Red Hat", "/usr/share/sendmail-cf"))


@pytest.mark.parametrize("place", [row[1] for row in LAYOUTS], ids=[row[0] for row in LAYOUTS])
def test_both_layouts_are_found(folder: Path, place: str) -> None:
    if place == str(TREE):
        done = subprocess.run(
            [SCRIPT, "--cf", folder / "sendmail.cf", FILES / "trinityos.mc"], capture_output=True, text=True, check=False
        )
    else:
        done = on_a_machine(folder, f"cp -R {folder}/tree {place}")
    assert (done.returncode, done.stderr) == (0, "")
    built = (folder / "sendmail.cf").read_text()
    assert "Xdnsbl-milter, " in built
    assert ("debian.m4" in built) == (place == str(TREE))


def on_a_machine(folder: Path, install: str) -> subprocess.CompletedProcess[str]:
    """Build trinityos.mc on a machine whose macros are where a command puts them, and are not Debian's."""
    shutil.copytree(TREE, folder / "tree", ignore=shutil.ignore_patterns("debian*"))
    script = (
        f"mount -t tmpfs none /usr/share && {install} && exec {SCRIPT} --cf {folder}/sendmail.cf {FILES}/trinityos.mc"
    )
    return subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
