"""The folder for counters: where it is made, and which of others it takes away."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dnsbl_milter.scratch import FolderError, make_folder
from mailhost.daemon import environment

MAKE = "from dnsbl_milter.scratch import make_folder; print(make_folder())"


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """Return the temporary folder, where there is no runtime directory."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def dead(folder):
    """Return the folder of a process that has ended."""
    done = subprocess.run(
        [sys.executable, "-c", MAKE],
        env=os.environ | environment() | {"RUNTIME_DIRECTORY": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_it_is_in_the_runtime_directory_if_there_is_one(parent, monkeypatch):
    (parent / "runtime").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{parent}/runtime:{parent}/other")
    folder = make_folder()
    assert folder.parent == parent / "runtime"
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folder)


def test_it_is_ours_alone(parent):
    folder = make_folder()
    assert folder.parent == parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_a_living_ones_stays_and_a_dead_ones_goes(parent):
    living = make_folder()
    (living / "counter_0.db").touch()
    left = dead(parent)
    # The dead one's went about the living one's too.
    assert sorted(map(str, parent.iterdir())) == sorted([str(living), left])
    other = make_folder()
    assert sorted(parent.iterdir()) == sorted([living, other])
    assert (living / "counter_0.db").exists()


INHERIT = """
import os, sys
from dnsbl_milter.scratch import make_folder
print(make_folder(), flush=True)
if os.fork() == 0:
    os.close(1)
    os.read(int(sys.argv[1]), 1)
"""


def test_who_inherits_it_keeps_it(parent):
    """As a worker does that drains while its supervisor has been killed."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", INHERIT, str(reading)],
            env=os.environ | environment() | {"RUNTIME_DIRECTORY": str(parent)},
            stdout=subprocess.PIPE,
            pass_fds=[reading],
            text=True,
            check=True,
        )
        make_folder()
        assert Path(done.stdout.strip()).is_dir()
    finally:
        os.close(writing)
        os.close(reading)


def test_without_a_place_there_is_a_message(parent, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{parent}/missing")
    with pytest.raises(FolderError, match=r"^cannot make a folder for the counters in .*/missing: No such file or directory; "):
        make_folder()
