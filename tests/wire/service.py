"""What systemd is to the daemon, where systemd itself cannot run: it passes a socket, listens, and asks for metrics.

    with Service(folder, configuration, listening=socket, watchdog=2.0) as service:
        service.wait_for("READY=1")
        service.restart()                  # as `systemctl restart`: the socket stays open
        service.metrics()["dnsbl_connections_total", ()]
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from mailhost.daemon import children, environment
from mailhost.events import read_event
from mailhost.process import wait_until

BOOT = """
import os, sys
given = int(sys.argv[1])
if given >= 0:
    if given != 3:
        os.dup2(given, 3)
        os.close(given)
    os.set_inheritable(3, True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "dnsbl-milter.socket"}
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""
"""Becomes the daemon under the process id that it names, which only the process itself knows."""

MAIN = "import sys; from dnsbl_milter.cli import main; main(sys.argv[1:], prog_name='dnsbl-milter')"

ONE_LIST = '[{ name = "one", zone = "one.example", weight = 4 }]'
"""The lists of a test that wants no more than one."""

Sample = tuple[str, tuple[tuple[str, str], ...]]


def policy(
    nameserver: str, socket: str | Path, *, actions: str = "{ defer = 3 }", lists: str = ONE_LIST, **milter: object
) -> str:
    """Return a configuration; {web} stands for where the metrics are served."""
    address = socket if isinstance(socket, str) and socket.startswith("inet") else f"local:{socket}"
    keys = {"socket": address, "workers": 2, "drain_seconds": 20} | milter
    section = ", ".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return f"""
        milter = {{ {section} }}
        dns = {{ nameservers = ["{nameserver}"], deadline = 10 }}
        actions = {actions}
        memory.url = ""
        metrics.listen = "{{web}}"
        health = {{ enabled = false, proof = false }}
        list = {lists}
    """


class Service:
    """The daemon, what it tells its service manager, its log, and its pages."""

    def __init__(
        self,
        folder: Path,
        configuration: str,
        *,
        listening: socket.socket | None = None,
        watchdog: float | None = None,
        wrapper: Sequence[str] = (),
        deaf: bool = False,
        prelude: str = "",
    ) -> None:
        """Prepare everything; `start` starts it. The watchdog is in seconds; the text's {web} is filled in.

        The wrapper is a command that becomes the daemon, such as strace -D. A deaf manager never reads what it is told.
        The prelude is Python that the daemon's process runs first: it makes a fault, or shortens a patience.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.web_address: tuple[str, int] = free.getsockname()
        self.web = "{}:{}".format(*self.web_address)
        self.folder = folder
        self.configuration = folder / "dnsbl-milter.toml"
        self.write(configuration)
        self.runtime = folder / "runtime"
        self.runtime.mkdir(exist_ok=True)
        self.told: list[tuple[float, str]] = []
        """Everything that was said to the manager: when, by time.monotonic(), and one state each."""
        self._log = folder / "log"
        self._listening = listening
        self._watchdog = watchdog
        self._wrapper = wrapper
        self._program = f"{prelude}\n{MAIN}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._hearer = threading.Thread(target=self._hear, name="service manager", daemon=True)
        if not deaf:
            self._hearer.start()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def write(self, configuration: str) -> None:
        """Write the configuration."""
        self.configuration.write_text(configuration.replace("{web}", self.web))

    def launch(self) -> None:
        """Start the daemon, and return at once."""
        given = -1 if self._listening is None else self._listening.fileno()
        beat = {} if self._watchdog is None else {"WATCHDOG_USEC": str(int(self._watchdog * 1e6))}
        manager = {"NOTIFY_SOCKET": str(self.folder / "notify"), "RUNTIME_DIRECTORY": str(self.runtime)}
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._wrapper, sys.executable, "-c", BOOT, str(given), self._program, "run", "--config", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=() if given < 0 else (given,),
                env=os.environ | environment() | manager | {"TMPDIR": str(self.folder), "STATE_DIRECTORY": str(self.folder)} | beat,
            )

    def start(self) -> None:
        """Start the daemon, and return once it has said that it is ready."""
        before = self.count("READY=1")
        self.launch()
        self.wait_until(lambda: self.count("READY=1") > before, "it is ready")

    def reload(self) -> None:
        """Ask for a reload, as ExecReload= does."""
        self.signal(signal.SIGHUP)

    def reload_and_wait(self) -> None:
        """Reload, and return once the daemon says that it is done."""
        before = self.count("READY=1")
        self.reload()
        self.wait_until(lambda: self.count("READY=1") > before, "it has reloaded")

    def restart(self) -> None:
        """Stop the daemon and start another one."""
        self.stop()
        self.start()

    def stop(self, patience: float = 40.0) -> int:
        """Send SIGTERM as KillMode=mixed does, to the supervisor alone; return its status once it has ended."""
        assert self.process is not None
        workers = children(self.process.pid)
        self.signal(signal.SIGTERM)
        status = self.process.wait(patience)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), patience, "its children have ended")
        return status

    def end(self) -> None:
        """End everything, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            left = children(self.process.pid)
            self.process.kill()
            self.process.wait()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        if self._hearer.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(self.folder / "notify"))
            self._hearer.join()
        self._notify.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def workers(self) -> list[int]:
        """Return the process identifiers of the workers: who counts into a shared file."""
        assert self.process is not None
        return [pid for pid in children(self.process.pid) if _counts(pid)]

    def log(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text(errors="surrogateescape") if self._log.exists() else ""

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the events of that name."""
        return [event for event in map(read_event, self.log().split("\n")[:-1]) if event["event"] == name]

    def count(self, state: str) -> int:
        """Return how often the manager was told that state."""
        return sum(said == state for _, said in list(self.told))

    def wait_for(self, state: str, patience: float = 20.0) -> None:
        """Wait until the manager has been told a state."""
        self.wait_until(lambda: self.count(state) > 0, f"it says {state}", patience)

    def wait_until(self, condition: Callable[[], bool], what: str, patience: float = 20.0) -> None:
        """Wait until a condition holds; an error quotes the log."""

        def look() -> bool:
            held = condition()
            if not held and self._dead():
                raise RuntimeError(f"it ended before {what}\n{self.log()[-4000:]}")
            return held

        try:
            wait_until(look, patience, what)
        except TimeoutError as fault:
            raise TimeoutError(f"{fault}\n{self.log()[-4000:]}") from None

    def page(self, path: str = "/metrics", accept: str = "") -> tuple[int, str, str]:
        """Return a page's status, content type and text."""
        request = Request(f"http://{self.web}{path}", headers={"Accept": accept} if accept else {})
        try:
            with urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except HTTPError as answer:
            with answer:
                return answer.code, answer.headers["Content-Type"], answer.read().decode()

    def metrics(self) -> dict[Sample, float]:
        """Return every sample by its name and its labels, sorted."""
        return read_samples(self.page()[2])

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status of /healthz, and what it says; 0 if nobody answers."""
        try:
            status, _, text = self.page("/healthz")
        except URLError:
            return 0, {}
        return status, json.loads(text)

    def _dead(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _hear(self) -> None:
        while words := self._notify.recv(4096).decode():
            now = time.monotonic()
            self.told += [(now, word) for word in words.split("\n")]


def read_samples(text: str) -> dict[Sample, float]:
    """Return every sample of a page in Prometheus' text format; raise ValueError if one stands there twice."""
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            if key in found:
                raise ValueError(f"twice: {key}")
            found[key] = sample.value
    return found


def _counts(pid: int) -> bool:
    try:
        return "/counter_" in Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
