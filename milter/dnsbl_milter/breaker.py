"""When to leave a list alone, and when to try it again.

Floor 2: standard library only. One worker's experience with one list; shared by the worker's threads.

One lost packet is no verdict on a list. Three different clients in a row who got nothing are: from then on the
list is not waited for, but one client at a time still asks it, so it is back with its first answer.
"""

from threading import Lock

from dnsbl_policy.lists import Client

CLIENTS = 3
"""Different clients in a row that must have got nothing."""

TRIAL = 5.0
"""Seconds after which a trial no longer keeps others from trying: a client that dawdles must not keep a list out."""


class Breaker:
    """Counts the clients in a row that a list gave nothing."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._disappointed: set[Client] = set()
        self._trial: Client | None = None
        self._trial_ends = 0.0

    @property
    def open(self) -> bool:
        """Tell whether the list is left alone."""
        return len(self._disappointed) >= CLIENTS

    def may_try(self, client: Client, now: float) -> bool:
        """Tell whether this client, at this moment in seconds, may try a list left alone; `release` ends the trial."""
        with self._lock:
            if self._trial is not None and now < self._trial_ends:
                return False
            self._trial, self._trial_ends = client, now + TRIAL
            return True

    def release(self, client: Client) -> None:
        """End the trial that this client holds, if it still does; the next client may try."""
        with self._lock:
            if self._trial == client:
                self._trial = None

    def answered(self) -> None:
        """Note that the list gave a client an answer."""
        if self._disappointed:
            with self._lock:
                self._disappointed.clear()

    def failed(self, client: Client) -> None:
        """Note that the list gave this client nothing."""
        with self._lock:
            if not self.open:
                self._disappointed.add(client)
