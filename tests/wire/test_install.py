"""contrib/install on a machine of its own: this one's /usr, and an /etc, /opt and /run that vanish with the test."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mailhost.process import program

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "contrib" / "install"
CONFIGURATION = "/etc/dnsbl-milter/dnsbl-milter.toml"
PREFIX = "/opt/dnsbl-milter"

MACHINE = """
set -e
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/etc" "$1/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" overlay /etc
mount -t tmpfs -o mode=755 opt /opt
mount -t tmpfs -o mode=755 run /run
echo ready
exec cat
"""


class Machine:
    """A mount namespace, and commands in it; nobody sees there what lies in its own folder out here."""

    def __init__(self, folder):
        self.path = ""
        self._holder = subprocess.Popen(
            [program("unshare", "util-linux"), "--mount", "--propagation", "private", "bash", "-c", MACHINE, "machine", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout.readline() == b"ready\n"

    def run(self, *words, **environment):
        """Run a command, and return what it said; pip finds what it needs in the tests' own environment."""
        return subprocess.run(
            [program("nsenter", "util-linux"), f"--target={self._holder.pid}", "--mount", *map(str, words)],
            env=os.environ
            | {
                "PYTHON": sys.executable,
                "PYTHONPATH": sysconfig.get_path("purelib"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PIP_NO_INDEX": "1",
                "PIP_NO_BUILD_ISOLATION": "0",
                "PIP_ROOT_USER_ACTION": "ignore",
                "PATH": f"{self.path}{os.environ['PATH']}:/usr/sbin:/sbin",
            }
            | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, *options):
        done = self.run(INSTALL, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def read(self, path):
        done = self.run("cat", path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, path, text):
        subprocess.run(
            ["nsenter", f"--target={self._holder.pid}", "--mount", "tee", path], input=text, text=True, stdout=subprocess.DEVNULL, check=True
        )

    def files(self):
        """Return everything below the three folders, but for their own times: kind, mode, owner, size, target and path."""
        found = self.run("find", "/etc", "/opt", "/run", "-xdev", "-printf", r"%y %m %u:%g %l %p\n").stdout
        return set(found.splitlines())

    def end(self):
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()


@pytest.fixture
def machine(tmp_path_factory):
    started = Machine(tmp_path_factory.mktemp("machine"))
    yield started
    started.end()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a machine on which it was installed, and what was said; tests leave it as it is."""
    started = Machine(tmp_path_factory.mktemp("machine"))
    yield started, started.install()
    started.end()


def test_it_tells_the_two_lines_for_sendmail(installed):
    _, said = installed
    lines = re.search(r"Add these two lines .*?\n\n(.*?)\n\n", said, re.DOTALL)[1].splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("dnl ")
    assert lines[1].startswith("INPUT_MAIL_FILTER(`dnsbl-milter', `S=local:/run/dnsbl-milter/milter.sock, T=C:10s;")
    assert "F=" not in lines[1]
    assert lines[1] in (ROOT / "README.md").read_text()


def test_the_program_runs_from_where_it_was_put(installed):
    machine, _ = installed
    command = re.search(r"^ExecStart=(\S+)", machine.read("/etc/systemd/system/dnsbl-milter.service"), re.MULTILINE)[1]
    done = machine.run(command, "config", "check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{CONFIGURATION}: fine")
    where = machine.run(f"{PREFIX}/bin/python", "-c", "import dnsbl_milter; print(dnsbl_milter.__file__)").stdout
    assert where.startswith(f"{PREFIX}/")


def test_the_units_are_those_that_are_tested(installed):
    machine, _ = installed
    for name in ("dnsbl-milter.service", "dnsbl-milter.socket"):
        assert machine.read(f"/etc/systemd/system/{name}") == (ROOT / "systemd" / name).read_text()
    done = machine.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/dnsbl-milter.service")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_user_and_its_folders_are_there(installed):
    machine, _ = installed
    entry = machine.run("getent", "passwd", "dnsbl-milter").stdout.strip().split(":")
    assert entry[5] == "/var/lib/dnsbl-milter"
    assert entry[6].endswith("nologin")
    # Sendmail's user reaches a socket that the milter opens itself.
    assert "dnsbl-milter" in machine.run("id", "-nG", "smmta").stdout.split()
    status = machine.run("stat", "-c", "%a %U %G", "/run/dnsbl-milter", "/etc/dnsbl-milter", CONFIGURATION).stdout
    assert status.splitlines() == ["755 root root", "750 root dnsbl-milter", "640 root dnsbl-milter"]
    done = machine.run("setpriv", "--reuid=dnsbl-milter", "--regid=dnsbl-milter", "--clear-groups", "cat", CONFIGURATION)
    assert done.returncode == 0
    done = machine.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat", CONFIGURATION)
    assert done.returncode != 0


def test_nothing_is_left_in_the_checkout():
    assert not (ROOT / "build").exists()


def test_again_it_is_an_upgrade_that_keeps_the_configuration(machine):
    machine.install()
    own = '[milter]\nworkers = 3 # my own\n[[list]]\nzone = "one.example"\nweight = 1\n[actions]\ntag = 1\n'
    machine.write(CONFIGURATION, own)
    # What an older version had, and this one has not.
    machine.write(f"{PREFIX}/share/README.md", "old\n")
    (library,) = machine.run("bash", "-c", f"echo {PREFIX}/lib/python3*/site-packages/dnsbl_milter").stdout.split()
    machine.write(f"{library}/metrics.py", "old = True\n")
    machine.write("/etc/systemd/system/dnsbl-milter.service", "[Service]\n")
    before = machine.files()
    said = machine.install()
    assert f"{CONFIGURATION} is there and stays as it is" in said
    assert machine.read(CONFIGURATION) == own
    assert machine.read(f"{library}/metrics.py") == (ROOT / "milter" / "dnsbl_milter" / "metrics.py").read_text()
    assert machine.read("/etc/systemd/system/dnsbl-milter.service") == (ROOT / "systemd/dnsbl-milter.service").read_text()
    assert {line for line in machine.files() ^ before if "__pycache__" not in line and "/tmp" not in line} == set()
    # A third time there is nothing to write, and nobody to add.
    again = machine.install()
    assert "+ write" not in again
    assert "+ usermod" not in again


def test_a_configuration_that_is_not_valid_is_named_and_nothing_goes_on(machine):
    machine.install()
    machine.write(CONFIGURATION, "[actions]\ntga = 3\n")
    done = machine.run(INSTALL)
    assert done.returncode == 1
    assert "actions.tga" in done.stderr
    assert "systemctl" not in done.stdout
    assert machine.read(CONFIGURATION) == "[actions]\ntga = 3\n"


def test_a_dry_run_says_what_it_would_do_and_does_nothing(machine):
    before = machine.files()
    said = machine.install("--dry-run")
    assert machine.files() == before
    for what in ("-m venv", "pip install", "dnsbl-milter.service", "systemd-sysusers", CONFIGURATION, "INPUT_MAIL_FILTER"):
        assert what in said
    machine.install()
    before = machine.files()
    said = machine.install("--uninstall", "--dry-run")
    assert machine.files() == before
    assert f"rm -r {PREFIX}" in said


def test_uninstalled_leaves_only_what_is_the_administrators(machine):
    before = machine.files()
    machine.install()
    said = machine.install("--uninstall")
    left = {line.split()[-1] for line in machine.files() - before}
    # Files of users change with a user, and their folders with them.
    left = {path for path in left if not re.fullmatch(r"/etc|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|/etc/\.pwd\.lock", path)}
    assert left <= {
        "/etc/dnsbl-milter", CONFIGURATION, "/etc/dnsbl-milter/keys", "/run/dnsbl-milter", "/etc/sysusers.d", "/etc/tmpfiles.d",
        "/etc/systemd/system",
    }  # fmt: skip
    assert CONFIGURATION in left
    assert "rm -r /etc/dnsbl-milter /var/lib/dnsbl-milter; userdel dnsbl-milter" in said
    assert "dnsbl-milter" not in machine.run("id", "-nG", "smmta").stdout.split()
    # And once more, with nothing there.
    machine.install("--uninstall")
    machine.install()


def test_another_place(machine):
    machine.install("--prefix", "/opt/elsewhere/milter")
    service = machine.read("/etc/systemd/system/dnsbl-milter.service")
    assert "ExecStart=/opt/elsewhere/milter/bin/dnsbl-milter run" in service
    assert "/opt/dnsbl-milter" not in service
    assert machine.run("/opt/elsewhere/milter/bin/dnsbl-milter", "--help").returncode == 0
    machine.install("--uninstall", "--prefix=/opt/elsewhere/milter")
    assert machine.run("test", "-e", "/opt/elsewhere/milter").returncode == 1


def test_it_goes_where_it_was(machine):
    machine.install("--prefix", "/opt/elsewhere/milter")
    said = machine.install()
    assert "-m venv" not in said
    assert machine.run("test", "-e", PREFIX).returncode == 1
    assert "/opt/elsewhere/milter/bin/dnsbl-milter config check && systemctl reload dnsbl-milter" in said
    machine.install("--uninstall")
    assert machine.run("test", "-e", "/opt/elsewhere/milter").returncode == 1


def test_whatever_roots_umask_the_milter_can_read_its_program(machine):
    done = machine.run("bash", "-c", f"umask 077; {INSTALL}")
    assert done.returncode == 0, done.stderr
    assert machine.run("find", PREFIX, "-not", "-type", "l", "-not", "-perm", "-o=r").stdout == ""
    assert machine.run("find", PREFIX, "-type", "d", "-not", "-perm", "-o=x").stdout == ""


def test_a_python_that_the_system_has_replaced(machine):
    """Debian's next release has another, and leaves the environment without what was installed for the old one."""
    machine.install()
    machine.run("bash", "-c", f"mv {PREFIX}/lib/python3.* {PREFIX}/lib/python3.0")
    assert "-m venv --clear" in machine.install()
    assert machine.run(f"{PREFIX}/bin/dnsbl-milter", "config", "check").returncode == 0
    assert machine.run("test", "-e", f"{PREFIX}/lib/python3.0").returncode == 1


def test_what_could_not_be_installed_is_tried_again_or_removed(machine, tmp_path):
    (tmp_path / "tmp").mkdir()
    # Without them pip finds none of the libraries.
    done = machine.run(INSTALL, PYTHONPATH="", TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 1
    assert "install: failed: " in done.stderr
    assert "pip install" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
    assert machine.run("test", "-e", "/etc/systemd/system/dnsbl-milter.service").returncode == 1
    machine.install("--uninstall")
    assert machine.run("test", "-e", PREFIX).returncode == 1
    machine.install()


def test_without_sendmail_the_socket_is_roots(machine):
    machine.run("sed", "-i", "/^smm/d", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")
    done = machine.run(INSTALL)
    assert done.returncode == 0, done.stderr
    assert "no Sendmail is here yet; run this again when it is" in done.stderr
    assert "\nSocketGroup=root\n" in machine.read("/etc/systemd/system/dnsbl-milter.socket")


def test_a_line_that_is_there_is_not_asked_for_again(machine):
    line = "INPUT_MAIL_FILTER(`dnsbl-milter', `S=local:/run/dnsbl-milter/milter.sock, T=C:10s;S:10s;R:10s;E:30s')dnl\n"
    machine.run("mkdir", "-p", "/etc/mail")
    machine.write("/etc/mail/sendmail.mc", f"dnl {line}")
    assert "Add these two lines" in machine.install()
    machine.write("/etc/mail/sendmail.mc", line)
    said = machine.install()
    assert "Add these two lines" not in said
    assert "/etc/mail/sendmail.mc has the milter's line." in said


def test_who_is_not_root_sees_a_dry_run_too(machine):
    machine.run("mkdir", "/opt/checkout")
    for part in ("contrib", "milter", "policy", "systemd", "README.md", "CHANGELOG.md", "LICENSE", "setup.cfg", "pyproject.toml"):
        machine.run("cp", "-r", ROOT / part, "/opt/checkout")
    machine.install()
    words = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/opt/checkout/contrib/install")
    done = machine.run(*words, "--dry-run", PYTHON="/usr/bin/python3")
    assert done.returncode == 0, done.stderr
    assert f"a {CONFIGURATION} that is there stays as it is" in done.stdout
    assert f"+ write {CONFIGURATION}" not in done.stdout
    done = machine.run(*words)
    assert done.returncode == 1
    assert "must be root" in done.stderr


SYSTEMCTL = """#!/bin/bash
echo "$*" >>/run/told
case $1 in
disable) [ -e /etc/systemd/system/dnsbl-milter.service ] ;;
restart) [ ! -e /run/broken ] ;;
esac
"""


@pytest.fixture
def booted(machine, tmp_path):
    """Return a machine on which systemd seems to run: what it is told is in /run/told."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    machine.run("mkdir", "-p", "/run/systemd/system")
    machine.path = f"{tmp_path}/bin:"
    return machine


def told(machine):
    """Return what systemctl has been told since the last time."""
    said = machine.read("/run/told").splitlines()
    machine.run("rm", "/run/told")
    return said


def test_under_systemd_the_socket_is_there_before_the_service(booted):
    booted.install()
    assert told(booted) == [
        "daemon-reload",
        "enable --now dnsbl-milter.socket",
        "enable dnsbl-milter.service",
        "restart dnsbl-milter.service",
    ]
    booted.write(CONFIGURATION, "[actions]\ntga = 3\n")
    assert booted.run(INSTALL).returncode == 1
    assert booted.run("test", "-e", "/run/told").returncode == 1


def test_a_service_that_does_not_start_is_said_with_where_to_look(booted):
    booted.run("touch", "/run/broken")
    done = booted.run(INSTALL)
    assert done.returncode == 1
    assert "install: it does not start: journalctl -u dnsbl-milter -n 20 tells why" in done.stderr


def test_under_systemd_it_is_stopped_and_gone(booted):
    booted.install()
    booted.run("mkdir", "/etc/systemd/system/dnsbl-milter.service.d")
    told(booted)
    said = booted.install("--uninstall")
    assert told(booted) == ["disable --now dnsbl-milter.service dnsbl-milter.socket", "daemon-reload"]
    assert "rm -r /etc/dnsbl-milter /etc/systemd/system/dnsbl-milter.service.d /var/lib/dnsbl-milter;" in said
    # And once more, with no unit that could be disabled.
    booted.install("--uninstall")


WRONG = [
    # options, and what is said
    (("--prefix", "/usr"), "a folder of its own"),
    (("--prefix", "relative"), "expected an absolute path"),
    (("--prefix", "/opt/../usr"), "expected a plain path"),
    (("--prefix", "/opt/a b"), "expected a plain path"),
    (("--prefix", "/etc/mail"), "is no virtual environment"),
    (("--uninstall", "--prefix", "/etc/mail"), "is no virtual environment"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_a_place_that_is_not_ours_is_refused(machine, options, said):
    before = machine.files()
    done = machine.run(INSTALL, *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert machine.files() == before


@pytest.mark.parametrize("options", [("--prefix",), ("--force",), ("here",)])
def test_wrong_usage(machine, options):
    done = machine.run(INSTALL, *options)
    assert done.returncode == 2
    assert done.stderr.startswith("install [--prefix DIR]")


def test_an_old_python_is_named(machine, tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    assert machine.run(old).returncode == 1
    done = machine.run(INSTALL, PYTHON=str(old))
    assert done.returncode == 1
    assert "older than 3.11" in done.stderr
