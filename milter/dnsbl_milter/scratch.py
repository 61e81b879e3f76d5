"""The folder in which one run of the daemon keeps its counters' files, and the end of those that dead ones left.

Floor 2: standard library only. A folder is locked (flock(2)) as long as any process of its daemon lives, for they
inherit the lock; so one whose lock can be had is nobody's.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "dnsbl-milter-metrics-"
_UNLOCKED = "dnsbl-milter-new-"
"""What a folder is called until it is locked, so that nobody who starts at the same time takes it for a dead one's."""


class FolderError(Exception):
    """The folder cannot be made; the message says what to do."""


def make_folder() -> Path:
    """Return an empty folder of our own, in the runtime directory if there is one; prometheus-client is told of it.

    Raises `FolderError`.
    """
    parent = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    try:
        parent = parent or tempfile.gettempdir()
        _sweep(Path(parent))
        made = Path(tempfile.mkdtemp(prefix=_UNLOCKED, dir=parent))
        # Never closed: it holds the lock.
        fcntl.flock(os.open(made, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = made.rename(made.with_name(_PREFIX + made.name.removeprefix(_UNLOCKED)))
    except OSError as fault:
        raise FolderError(
            f"cannot make a folder for the counters in {parent or 'any temporary folder'}: {fault.strerror}; "
            f"you are user {os.geteuid()}, and RUNTIME_DIRECTORY names another place"
        ) from None
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return folder


def _sweep(parent: Path) -> None:
    """Remove the folders of daemons that were killed."""
    for entry in parent.glob(f"{_PREFIX}*"):
        # Whatever else goes by that name, or has just gone, is none of ours.
        with contextlib.suppress(OSError):
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry)
            finally:
                os.close(descriptor)
