"""The main job before your eyes: a dozen real SMTP sessions, what each client was told, and why.

Started by contrib/demo, inside contrib/enclosed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from mailhost.daemon import SOCKET, Daemon, command
from mailhost.lists import ListServer, sample_zones
from mailhost.process import StartError
from mailhost.resolver import Resolver
from mailhost.sendmail import PASSWORD, USER, MailHost
from mailhost.smtp import send_message

FOLDER = Path("/run/mailhost")
CONFIGURATION = Path(__file__).with_name("demonstration.toml")
METRICS = "http://127.0.0.1:10782/metrics"
ALICE = "alice@acme123.com"
FORGED = b"Subject: hello\nX-DNSBL-Score: -100\nX-DNSBL-Action: accept\n\nHello.\n"


@dataclass(frozen=True)
class Scene:
    """One session of the demonstration."""

    source: str
    title: str
    recipients: Sequence[str] = (ALICE,)
    content: bytes = b"Subject: hello\n\nHello.\n"
    auth: tuple[str, str] | None = None


SCENES = (
    Scene("198.51.100.7", "on no list: nothing happens to its mail"),
    Scene("198.51.100.10", "a dial-up address: tagged, and its forged headers removed", content=FORGED),
    Scene("198.51.100.20", "two lists: deferred"),
    Scene("198.51.100.21", "two stronger lists: quarantined"),
    Scene("198.51.100.25", "three lists: rejected"),
    Scene("198.51.100.26", "everything there is: discarded"),
    Scene("198.51.100.37", "two lists, and an allow-list that outweighs them"),
    Scene("192.168.0.9", "three lists, but our own network"),
    Scene("198.51.100.50", "two lists, but a friend's host, its name verified"),
    Scene("198.51.100.40", "the same name, forged"),
    Scene("198.51.100.25", "postmaster is always reachable", ("postmaster@acme123.com", ALICE)),
    Scene("198.51.100.25", "our own user on a listed line, logged in", auth=(USER, PASSWORD)),
    Scene("2001:db8::10", "an IPv6 client"),
)


def main() -> None:
    """Start everything, play every scene, show what is left, end everything."""
    print("Starting rbldnsd with seven zones, unbound, dnsbl-milter and Sendmail ...", flush=True)
    lists = ListServer(FOLDER / "lists", sample_zones())
    resolver = Resolver(FOLDER / "resolver", [lists])
    daemon = Daemon(FOLDER / "milter", CONFIGURATION.read_text())
    host = MailHost(FOLDER / "sendmail", SOCKET)
    try:
        for number, scene in enumerate(SCENES, 1):
            play(number, scene, daemon)
        show_mail(host)
        show_metrics()
        heading(f"dnsbl-milter explain {SCENES[4].source}")
        print(command("explain", "--config", daemon.configuration, SCENES[4].source).stdout)
    finally:
        host.stop()
        daemon.stop()
        resolver.stop()
        lists.stop()
    print("All servers have ended.")


def play(number: int, scene: Scene, daemon: Daemon) -> None:
    """Go through one session, and show the two sides of it."""
    before = len(daemon.decisions())
    outcome = send_message(scene.source, "sender@plain.example", scene.recipients, scene.content, auth=scene.auth)
    heading(f"{number}. {scene.source}: {scene.title}")
    for recipient, reply in outcome.recipients.items():
        print(f"  RCPT TO:<{recipient}>\n      {reply}")
    if outcome.message is not None:
        print(f"  (the message)\n      {outcome.message}")
    for line in daemon.decisions()[before:]:
        print(f"  why: {line}")


def show_mail(host: MailHost) -> None:
    """Show the headers of what was delivered, and what is held."""
    heading("Delivered to alice")
    for message in host.messages("alice"):
        ours = [f"{name}: {value}" for name, value in message.items() if name.lower().startswith("x-dnsbl-")]
        received = " ".join(str(message["Received"]).split())
        print(f"  {received.partition(' by ')[0]}\n      {'; '.join(ours) or 'no header of ours'}")
    heading("In the quarantine queue (mailq -qQ)")
    for entry in host.quarantined():
        print(f"  {entry.id} from {entry.sender} to {', '.join(entry.recipients)}\n      {entry.reason}")


def show_metrics() -> None:
    """Show the counters that are not zero."""
    heading(f"Metrics ({METRICS})")
    with urlopen(METRICS, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if "_total" in name and not line.startswith("#") and float(value):
                print(f"  {name} {float(value):g}")


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except StartError as error:
        sys.exit(f"demo: {error}")
