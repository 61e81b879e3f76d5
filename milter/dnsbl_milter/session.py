"""One SMTP connection: what Sendmail tells about it, and what it is told in return.

Floor 3: everything here is what libmilter calls, by way of `worker`; pymilter's constants come from here on up.

Asked at connect, answered at RCPT: Sendmail throws a reply to connect away, and who has logged in is not known yet
there. A client that is exempt is accepted at connect and never heard of again; everyone else is seen
to the end of each message, for forged headers and honest counts.

A session keeps the `House` it began with, so a reload never changes the rules under a running dialogue.
"""

import socket
from dataclasses import dataclass, field
from typing import Any

import Milter

from dnsbl_milter import log, replies
from dnsbl_milter.case import Case, House
from dnsbl_milter.pauses import EVERYTHING
from dnsbl_policy.actions import Action
from dnsbl_policy.allow import Exemption
from dnsbl_policy.greylist import Recollection
from dnsbl_policy.lists import parse_client
from dnsbl_policy.points import written
from dnsbl_policy.scoring import Verdict, exempted, may_share

ACTIONS = Milter.ADDHDRS | Milter.CHGHDRS | Milter.QUARANTINE
NOT_CALLED = Milter.P_NOBODY | Milter.P_NOEOH | Milter.P_NODATA | Milter.P_NOUNKNOWN
NOT_ANSWERED = Milter.P_NR_HDR
"""The callback that Sendmail need not wait for. It waits for that of HELO, since pymilter answers a name that is no
UTF-8 in our stead, and libmilter complains to the system log about an answer where none was promised."""

_OUR_HEADERS = {name.lower(): name for name in replies.HEADERS}


@dataclass(slots=True)
class _Message:
    """What is known of the message under way."""

    sender: str = ""
    queue: str | None = None
    first_exempt: bool | None = None
    action: Action = Action.ACCEPT
    """The hardest that was decided for a recipient of the message and concerns it whole."""
    judged: bool = False
    forged: dict[str, int] = field(default_factory=dict)


class Session:
    """One connection. Its callbacks are called one after the other, though not always by the same thread."""

    def __init__(self, house: House, context: Any) -> None:
        self._house = house
        self._context = context
        self._host = ""
        self._helo = ""
        # Like the house, what is paused stays as it was when the session began.
        self._paused = house.pauses.names()
        self._enforce = house.policy.enforce and EVERYTHING not in self._paused
        self._case = Case(house, None, self._paused)
        self._message = _Message()
        self._after_header = int(Milter.CONTINUE)
        self._may = ACTIONS
        """What Sendmail lets us do with a message."""

    def negotiate(self, options: list[int]) -> int:
        """Agree on what Sendmail calls and what we may do; less than we want is no reason to refuse."""
        offered = options[1]
        self._after_header = int(Milter.NOREPLY if offered & Milter.P_NR_HDR else Milter.CONTINUE)
        options[0] = self._may = ACTIONS & options[0]
        options[1] = offered & (NOT_CALLED | NOT_ANSWERED)
        options[2] = options[3] = 0
        return int(Milter.CONTINUE)

    def connect(self, host: str, family: int, address: object) -> int:
        """Let an exempt client pass, or send the questions about it."""
        self._house.metrics.connections.inc()
        self._host = host
        client = parse_client(str(address[0])) if isinstance(address, tuple) else None
        self._case = Case(self._house, client, self._paused)
        # Sendmail gives a name only if it leads back to the address; else the address in brackets.
        verified = None if host.startswith("[") else host
        # A family that we do not know is not the host itself, and has no address to look up: it has no evidence.
        if client is None and family in (socket.AF_INET, socket.AF_INET6):
            return int(Milter.CONTINUE)
        reason = self._house.policy.allow.client(client, verified)
        if reason is not None:
            self._house.metrics.exempted(reason)
            self._log(exempted(client, reason), Action.ACCEPT)
            return int(Milter.ACCEPT)
        self._case.ask()
        return int(Milter.CONTINUE)

    def hello(self, name: str) -> int:
        """Keep the name for the log."""
        self._helo = name
        return int(Milter.CONTINUE)

    def envfrom(self, sender: str) -> int:
        """Begin a message; one of an authenticated submitter is not judged."""
        self._message = _Message(_bare(sender), self._context.getsymval("i"))
        if self._house.policy.allow.authenticated and self._context.getsymval("{auth_authen}"):
            self._house.metrics.exempted(Exemption.AUTHENTICATED)
            self._log(exempted(self._case.client, Exemption.AUTHENTICATED), Action.ACCEPT)
            return int(Milter.ACCEPT)
        return int(Milter.CONTINUE)

    def envrcpt(self, recipient: str) -> int:
        """Decide about a recipient."""
        address = _bare(recipient)
        exempt = self._house.policy.allow.recipient(address)
        if exempt:
            self._house.metrics.exempted(Exemption.RECIPIENT)
            verdict = exempted(self._case.client, Exemption.RECIPIENT)
            whole = self._message.action
        else:
            verdict = self._case.judge()
            whole = verdict.action
        action = verdict.action if self._enforce else Action.ACCEPT
        if self._enforce and not may_share(self._message.first_exempt, exempt, whole):
            self._decide(verdict, Action.DEFER, address)
            return self._refuse(replies.separately())
        recollection = self._case.recall(self._message.sender, address) if action is Action.DEFER else None
        if recollection is not None and recollection.forgives:
            action = Action.TAG
        self._decide(verdict, action, address, recollection)
        if action in (Action.DEFER, Action.REJECT):
            return self._refuse(replies.refusal(verdict, action, self._addresses(verdict)))
        if self._message.first_exempt is None:
            self._message.first_exempt = exempt
        if not exempt:
            self._message.judged = True
            self._message.action = action
        return int(Milter.CONTINUE)

    def header(self, name: str, _value: bytes) -> int:
        """Count copies of our own headers, which only we may set."""
        ours = _OUR_HEADERS.get(name.strip().lower())
        if ours:
            self._message.forged[ours] = self._message.forged.get(ours, 0) + 1
        return self._after_header

    def eom(self) -> int:
        """Finish a message: remove forged headers, add ours, quarantine or discard."""
        message, self._message = self._message, _Message()
        self._house.metrics.finished(message.action)
        if not self._enforce:
            return int(Milter.CONTINUE)
        if message.action is Action.DISCARD:
            return int(Milter.DISCARD)
        for name, copies in message.forged.items() if self._may & Milter.CHGHDRS else ():
            # Sendmail keeps removed copies in their places, so the others' numbers stay.
            for copy in range(1, copies + 1):
                self._context.chgheader(name, copy, None)
        if message.judged:
            verdict = self._case.judge()
            for name, value in replies.headers(verdict, message.action) if self._tells(message.action) else ():
                self._context.addheader(name, value)
            if message.action is Action.QUARANTINE and self._may & Milter.QUARANTINE:
                self._context.quarantine(replies.quarantine_reason(verdict))
        return int(Milter.CONTINUE)

    def abort(self) -> int:
        """Forget a message that Sendmail gave up: RSET, or the end of a refused one."""
        self._message = _Message()
        return int(Milter.CONTINUE)

    def close(self) -> int:
        """End the client's case."""
        self._case.close()
        return int(Milter.CONTINUE)

    def _decide(
        self, verdict: Verdict, done: Action, recipient: str, recollection: Recollection | None = None
    ) -> None:
        """Count and log what is done with a recipient."""
        self._house.metrics.decided(verdict, done)
        if verdict.exempt is None and (self._case.observed is not None or not self._enforce):
            self._house.metrics.observed(verdict.action if self._case.observed is None else self._case.observed)
        self._log(verdict, done, recipient, recollection)

    def _addresses(self, verdict: Verdict) -> dict[str, str]:
        client = verdict.client
        return {one.name: one.look_up_address(client) for one in self._house.policy.lists} if client else {}

    def _tells(self, action: Action) -> bool:
        wanted = self._house.add_headers
        return bool(self._may & Milter.ADDHDRS) and (
            wanted == "always" or (wanted == "tagged" and action is not Action.ACCEPT)
        )

    def _refuse(self, reply: replies.Reply) -> int:
        # A bare percent sign makes libmilter drop the reply, and accept.
        self._context.setreply(reply.code, reply.enhanced, reply.text.replace("%", "%%"))
        return int(Milter.REJECT if reply.code.startswith("5") else Milter.TEMPFAIL)

    def _log(
        self, verdict: Verdict, enforced: Action, recipient: str = "", recollection: Recollection | None = None
    ) -> None:
        log.info(
            "decision",
            client=verdict.client,
            host=self._host,
            helo=self._helo,
            sender=self._message.sender,
            recipient=recipient,
            queue=self._message.queue,
            action=verdict.action,
            enforced=enforced,
            score=written(verdict.score),
            low=written(verdict.low),
            high=written(verdict.high),
            lists=replies.lists_field(verdict.contributions),
            observed=replies.lists_field(verdict.observed),
            unknown=",".join(f"{name}:{why}" for name, why in verdict.unknowns),
            exempt=verdict.exempt,
            decisive=",".join(verdict.decisive),
            memory=recollection,
            wait_ms=round(self._case.waited * 1000, 1),
            cached=self._case.cached,
        )


def _bare(address: str) -> str:
    """Return an envelope address without its angle brackets."""
    return address[1:-1] if address.startswith("<") and address.endswith(">") else address
