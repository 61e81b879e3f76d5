"""The README's way to a host of one's own, walked: its commands as they stand there, on a private copy of this machine.

Started as a program inside contrib/enclosed, this file is the walk, and prints what happened; as a test it judges that.
"""

import base64
import configparser
import hashlib
import json
import mailbox
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mailhost import syslog
from mailhost.events import read_event
from mailhost.lists import ListServer, Zone
from mailhost.process import Process, wait_until
from mailhost.resolver import Resolver
from mailhost.sendmail import SYSLOG_SOCKET
from mailhost.smtp import send_message

ROOT = Path(__file__).parents[2]
MACHINE = Path("/run/machine")
CHANGED = ("/etc", "/opt", "/var/lib", "/var/log")  # /run and the mail spools are the enclosure's own
ENCLOSED = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")  # which the enclosure has laid over
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # an administrator's
INIT = {"systemctl", "journalctl"}
"""Commands that speak to a running systemd. Their equivalent is what the README itself says for where none runs."""

LISTED, TRUSTED, PLAIN = "198.51.100.21", "198.51.100.37", "198.51.100.7"
ZONES = (  # the test entries as the true lists have them (RFC 5782), a listed client, and one that is trusted too
    Zone(
        "zen.spamhaus.org",
        "ip4set",
        tuple(f"127.0.0.2 :127.0.0.{code}:https://check.spamhaus.org/query/ip/$" for code in (2, 4, 10))
        + tuple(f"{address} :127.0.0.2:https://check.spamhaus.org/sbl/query/SBL1" for address in (LISTED, TRUSTED)),
    ),
    Zone("bl.spamcop.net", "ip4set", tuple(f"{address} :127.0.0.2:Blocked" for address in ("127.0.0.2", LISTED))),
    Zone("list.dnswl.org", "ip4set", ("127.0.0.2 :127.0.10.0:dnswl.test", f"{TRUSTED} :127.0.5.3:trusted.example")),
)


# --- the section


@dataclass
class Block:
    """What a step says to type, or to write into a file."""

    step: int
    kind: str  # sh, toml or m4
    text: str
    before: str  # the sentences before it


def section(readme):
    """Return the title of the section, and its blocks in order."""
    found = re.search(r"^## (Your own host .*)\n((?:(?!## ).*\n)*)", readme, re.MULTILINE)
    assert found, "the section is not there"
    blocks, step, before, lines, kind = [], 0, [], [], ""
    for line in found[2].splitlines():
        if begins := re.match(r"(\d+)\. ", line):
            assert int(begins[1]) == step + 1
            step, before = step + 1, []
        if fence := re.fullmatch(r"   ```(\w*)", line):
            if fence[1]:
                kind, lines = fence[1], []
            else:
                blocks.append(Block(step, kind, "".join(lines), " ".join(before).strip()))
                kind, before = "", []
        elif kind:
            lines.append(line.removeprefix("   ") + "\n")
        else:
            before.append(line.strip())
    return found[1], blocks


def the_file(block):
    """Return the file that a step names before what goes into it."""
    (name,) = re.findall(r"`(/etc/[^`]+)`", block.before)
    return Path(name)


TITLE, BLOCKS = section((ROOT / "README.md").read_text("utf-8"))


# --- the walk


class Machine:
    """A copy of this machine as an administrator has it: Sendmail in service, and a resolver of its own."""

    def __init__(self, wheels):
        kept = {name: Path(name).read_bytes() for name in ENCLOSED}
        MACHINE.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "machine", MACHINE], check=True)
        for name in CHANGED:
            upper, work = MACHINE / "upper" / name[1:], MACHINE / "work" / name[1:]
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            status = Path(name).stat()
            os.chown(upper, status.st_uid, status.st_gid)
            upper.chmod(status.st_mode & 0o7777)
            options = f"lowerdir={name},upperdir={upper},workdir={work}"
            subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", name], check=True)
        for name, content in kept.items():
            Path(name).unlink(missing_ok=True)
            Path(name).write_bytes(content)
        # A busy machine is a reason for Sendmail to refuse connections, and others may keep this one busy.
        (MACHINE / "loadavg").write_text("0.00 0.00 0.00 1/1 1\n")
        subprocess.run(["mount", "--bind", MACHINE / "loadavg", "/proc/loadavg"], check=True)
        (MACHINE / "tmp").mkdir()
        (MACHINE / "tmp").chmod(0o1777)
        self.environment = {
            "HOME": str(MACHINE),
            "LANG": "C.UTF-8",
            "PATH": PATH,
            "TMPDIR": str(MACHINE / "tmp"),
            # What PyPI is to the administrator.
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.lists = ListServer(Path("/run/mailhost/lists"), ZONES)
        self.resolver = Resolver(Path("/run/mailhost/resolver"), [self.lists])
        self.syslog = MACHINE / "syslog"
        self.logger = Process(
            [sys.executable, "-I", "-S", syslog.__file__, SYSLOG_SOCKET, self.syslog], MACHINE / "logger", SYSLOG_SOCKET.exists
        )

    def run(self, script):
        """Run a script as it stands; what it leaves running keeps none of our pipes."""
        with (MACHINE / "output").open("w+b") as output:
            done = subprocess.run(
                ["bash", "-e", "-c", script],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
            )
            output.seek(0)
            return {"status": done.returncode, "output": output.read().decode(errors="replace")}


def without_systemd():
    """Return the blocks as this machine can run them, each with the one it stands for, or None."""
    assert not Path("/run/systemd/system").exists()
    chosen, instead = [], None
    for block in BLOCKS:
        if block.kind == "sh" and block.text.split()[0] in INIT:
            instead = block
            continue
        if instead:
            assert block.step == instead.step, "a step does not say what to do without systemd"
            assert block.before.startswith("Where no systemd runs")
        chosen.append((block, instead))
        instead = None
    assert instead is None
    return chosen


def mails():
    """Return the headers of root's mail, by subject."""
    path = Path("/var/mail/root")
    if not path.exists():
        return {}
    with closing(mailbox.mbox(path, create=False)) as box:
        return {each["Subject"]: dict(each.items()) for each in box}


def walk(wheels):
    """Walk, and return what every step did, and what came of it."""
    machine = Machine(wheels)
    steps, sent = [], {}
    first = machine.run("service sendmail start")  # which is in service before anything begins
    for block, instead in without_systemd():
        done = {"status": 0, "output": ""}
        if block.kind == "toml":
            the_file(block).write_text(block.text)  # which keeps its owner and mode
        elif block.kind == "m4":
            path = the_file(block)
            above, mailer, below = path.read_text().partition("\nMAILER")
            path.write_text(f"{above}\n{block.text.rstrip()}{mailer}{below}")
        else:
            if block.step == BLOCKS[-1].step:
                # Before the verdicts are read, others write too.
                for client in (LISTED, TRUSTED, PLAIN):
                    text = f"Subject: from {client}\n\nHello.\n"
                    sent[client] = str(send_message(client, "", "root", text.encode(), host="127.0.0.1").last)
                wait_until(lambda: len(mails()) > len(sent), 20, "all mail is there")
            done = machine.run(block.text)
        steps.append(asdict(block) | done | {"instead": instead and instead.text})
        if done["status"]:
            break
    return {
        "before": first,
        "steps": steps,
        "sent": sent,
        "mails": mails(),
        "syslog": machine.syslog.read_text(errors="replace") if machine.syslog.exists() else "",
        "users": machine.run("ps -eo user:20=,args= | awk '/dnsbl-milter run/ && !/awk/ {print $1}' | sort -u")["output"].split(),
    }


# --- what the walk brings along


def requirements():
    """Yield every distribution that an installation by the machine's Python needs, and what it is built with."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    wanted = [*setup["options"]["install_requires"].split("\n"), *setup["options.extras_require"]["fleet"].split("\n"), *build]
    version = "import platform; print(platform.python_version())"
    theirs = subprocess.run(["python3", "-c", version], env={"PATH": PATH}, capture_output=True, text=True, check=True).stdout.strip()
    environment = {"extra": "", "python_full_version": theirs}
    found = set()
    while wanted:
        if not (line := wanted.pop().strip()):
            continue
        needed = Requirement(line)
        if needed.name not in found and (not needed.marker or needed.marker.evaluate(environment)):
            found.add(needed.name)
            yield distribution(needed.name)
            wanted += distribution(needed.name).requires or ()


def pack(installed, folder):
    """Make the wheel again that a distribution was installed from."""
    tag = re.search(r"^Tag: (\S+)", installed.read_text("WHEEL"), re.MULTILINE)[1]
    name = re.sub(r"[-_.]+", "_", installed.metadata["Name"])
    record = f"{name}-{installed.version}.dist-info/RECORD"
    rows = []
    with zipfile.ZipFile(folder / f"{name}-{installed.version}-{tag}.whl", "w") as wheel:
        for file in installed.files:
            path = str(file)
            if path.startswith("..") or path.endswith((".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")):
                continue  # made by pip
            content = file.locate().read_bytes()
            folder_, _, rest = path.partition("/")
            if folder_.endswith(".dist-info"):
                path = f"{name}-{installed.version}.dist-info/{rest}"
            wheel.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(content)}\n")
        wheel.writestr(record, "".join([*rows, f"{record},,\n"]))


# --- the judgement


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Return what the walk printed; it has a network and a /run of its own, and no other test can be in its way."""
    wheels = tmp_path_factory.mktemp("wheels")
    for each in requirements():
        pack(each, wheels)
    done = subprocess.run(
        [ROOT / "contrib" / "enclosed", sys.executable, __file__, wheels],
        env=os.environ | {"PYTHONPATH": str(ROOT / "contrib")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def said(walked, step):
    """Return what the last command of a step printed."""
    return [each["output"] for each in walked["steps"] if each["step"] == step][-1]


def step_of(text):
    """Return the number of the step that says something."""
    (number,) = {block.step for block in BLOCKS if text in block.text}
    return number


def test_there_are_as_many_steps_as_promised():
    assert TITLE == "Your own host in under ten steps"
    assert {block.step for block in BLOCKS} == set(range(1, BLOCKS[-1].step + 1))
    assert BLOCKS[-1].step < 10
    assert {block.kind for block in BLOCKS} == {"sh", "toml", "m4"}


def test_every_command_does_what_it_says(walked):
    assert walked["before"]["status"] == 0, walked["before"]["output"]
    failed = [each for each in walked["steps"] if each["status"]]
    assert failed == [], "".join(each["text"] + each["output"] for each in failed)
    done = [each["text"] for each in walked["steps"]]
    replaced = [each["instead"] for each in walked["steps"] if each["instead"]]
    assert [block.text for block in BLOCKS if block.text not in done] == replaced
    # The one command of systemd to start it, and the one to read its log.
    assert replaced == ["systemctl restart dnsbl-milter\n", "journalctl -u dnsbl-milter -g ^decision\n"]


def test_what_stands_for_systemds_commands_is_about_the_same_service():
    unit = (ROOT / "systemd" / "dnsbl-milter.service").read_text()
    (start,) = [block.text for block in BLOCKS if "setpriv" in block.text]
    program = re.search(r"^ExecStart=(\S+ run)\b", unit, re.MULTILINE)[1]
    user = re.search(r"^User=(.+)$", unit, re.MULTILINE)[1]
    assert f"--reuid {user} --regid {user} " in start
    assert f"{program} >>/var/log/dnsbl-milter.log" in start
    asked = subprocess.run(
        ["journalctl", "-u", "dnsbl-milter", "-g", "^decision"], capture_output=True, text=True, check=False
    )
    assert asked.returncode in (0, 1), asked.stderr  # 1: nothing found


def test_the_installation_tells_the_next_steps_as_the_readme_does(walked):
    told = said(walked, 1)
    (line,) = [block.text for block in BLOCKS if block.kind == "m4"]
    assert line in told
    assert "make -C /etc/mail && service sendmail restart" in told
    assert "pip install" in told


def test_the_policy_is_fine(walked):
    assert said(walked, step_of("config check")).startswith("/etc/dnsbl-milter/dnsbl-milter.toml: fine")


def test_explain_shows_what_a_listed_client_would_meet(walked):
    shown = said(walked, step_of("explain"))
    for word in ("zen.spamhaus.org", "bl.spamcop.net", "list.dnswl.org", "SBL", "XBL", "PBL", "X-DNSBL-Action: tag"):
        assert word in shown


def test_the_first_mail_is_tagged(walked):
    first = walked["mails"]["first tagged mail"]
    assert first["X-DNSBL-Action"] == "tag"
    assert "zen" in first["X-DNSBL-Score"]


def test_a_listed_client_is_tagged_and_others_are_not(walked):
    assert {reply[:3] for reply in walked["sent"].values()} == {"250"}
    actions = {client: walked["mails"][f"from {client}"].get("X-DNSBL-Action") for client in walked["sent"]}
    assert actions == {LISTED: "tag", TRUSTED: None, PLAIN: None}


def test_the_verdicts_are_in_the_log(walked):
    verdicts = {each["client"]: each for each in map(read_event, said(walked, BLOCKS[-1].step).splitlines())}
    actions = {client: each["action"] for client, each in verdicts.items()}
    assert actions == {"127.0.0.2": "tag", LISTED: "tag", TRUSTED: "accept", PLAIN: "accept"}
    assert verdicts[LISTED]["lists"] == "zen.spamhaus.org:SBL:3.5,bl.spamcop.net:reported:3.5"
    assert {each["unknown"] for each in verdicts.values()} == {""}


def test_it_runs_as_its_user_and_sendmail_has_no_complaint(walked):
    assert walked["users"] == ["dnsbl-milter"]
    about = [line for line in walked["syslog"].splitlines() if "milter" in line.lower() and "sm-mta" in line]
    assert about
    assert [line for line in about if "Milter (dnsbl-milter) add: header: X-DNSBL-" not in line] == []


if __name__ == "__main__":
    sys.stdout.write(json.dumps(walk(Path(sys.argv[1]))))
