"""A real browser: Chromium without a screen, driven by its own WebDriver over HTTP (W3C WebDriver, and Chrome's DevTools).

    with Browser(folder) as browser:
        browser.look_like(width=400, scheme="dark")
        browser.open("http://127.0.0.1:10782/")
        assert browser.run("return document.title") == "dnsbl-milter"
        assert browser.complaints() == []
        browser.screenshot(folder / "page.png")

It is started without all that Chromium does of its own accord, so that it asks for nothing but what a page makes it ask
for, and with a profile of its own.
"""

import base64
import contextlib
import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

from mailhost.process import Process, program

PATIENCE = 60.0
"""Seconds for a start or a command on a machine that is busy."""

# Root, as which the tests run, and a namespace have no sandbox for it.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


class Browser:
    """One window of one browser."""

    def __init__(self, folder: Path) -> None:
        """Start it; everything that it writes is in the folder."""
        folder.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._root = f"http://127.0.0.1:{port}"
        self._session = ""
        self._driver = Process(
            [program("chromedriver", "chromium-driver"), f"--port={port}"],
            folder / "chromedriver.log",
            self._is_ready,
            deadline=PATIENCE,
            environment={"HOME": str(folder), "TMPDIR": str(folder)},
        )
        options = {
            "binary": program("chromium", "chromium"),
            "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"],
        }
        try:
            logs = {"browser": "ALL", "performance": "ALL"}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
            made = self._call("/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.stop()
            raise
        self._session = f"/session/{made['sessionId']}"
        # Its own first page asks for a good deal.
        self.open("about:blank")
        self.requests()
        self.complaints()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(URLError):
            self._call(self._session, method="DELETE")
        self._driver.stop()

    def look_like(self, *, width: int, scheme: str, height: int = 900) -> None:
        """Be as wide as that, in CSS pixels, and prefer that scheme of colours: light or dark."""
        phone = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", {"features": [feature]})

    def open(self, address: str) -> None:
        """Load a page, within what WebDriver gives a page by default. Raises RuntimeError if it does not load."""
        self._call(f"{self._session}/url", {"url": address})

    def run(self, script: str) -> Any:
        """Return what a script says about the page."""
        return self._call(f"{self._session}/execute/sync", {"script": script, "args": []})

    def requests(self) -> list[str]:
        """Return the addresses that it has asked for since the last time."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return what its console says since the last time."""
        return [entry["message"] for entry in self._log("browser")]

    def screenshot(self, file: Path) -> None:
        """Write a picture of the whole page, PNG."""
        shot = self.devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(shot["data"]))

    def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        """Return what the DevTools protocol answers to a command."""
        return self._call(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call(f"{self._session}/se/log", {"type": kind})
        return found

    def _is_ready(self) -> bool:
        try:
            return bool(self._call("/status", method="GET")["ready"])
        except URLError:
            return False

    def _call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = Request(self._root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except URLError as fault:
            if not hasattr(fault, "read"):
                raise
            said = json.loads(fault.read())["value"]
            raise RuntimeError(f"{path}: {said['error']}: {said['message']}") from None
