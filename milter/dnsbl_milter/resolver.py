"""What all questions to a panel of lists share: the nameservers, and which of them and of the lists deserve patience.

Floor 2: standard library only. One of each IP version in a worker, shared by its threads; who asks is an `inquiry`.
"""

import weakref
from collections.abc import Sequence

from dnsbl_milter import wire
from dnsbl_milter.breaker import Breaker
from dnsbl_milter.nameserver import Nameserver, keep_stamping
from dnsbl_policy.lists import DnsList

FAITH = 60.0
"""Seconds that another nameserver is preferred to the first, before one client finds out whether the first is back."""


class Resolver:
    """The nameservers and lists of one panel, and what experience with them says."""

    def __init__(
        self, nameservers: Sequence[Nameserver], lists: Sequence[DnsList], *, deadline: float, retry: float
    ) -> None:
        self.nameservers = tuple(nameservers)
        self.lists = tuple(lists)
        self.deadline = deadline
        self.retry = retry
        self.preferred = 0
        """The nameserver that is worth asking first, so that a dead one does not delay every client."""
        self._look_back_at = 0.0
        self.breakers = tuple(Breaker() for _ in lists)
        self.tails = tuple(wire.zone_tail(one.zone) for one in lists)
        weakref.finalize(self, keep_stamping().close)

    def first(self, now: float) -> int:
        """Return the nameserver that the next client begins with."""
        if self.preferred and now >= self._look_back_at:
            self._look_back_at = now + FAITH  # one client finds out; everyone else stays
            return 0
        return self.preferred

    def prefer(self, server: int, now: float) -> None:
        """Begin with this nameserver from now on.

        Not for good: the order is the administrator's, and lists answer error codes to many a public resolver.
        """
        self.preferred, self._look_back_at = server, now + FAITH
