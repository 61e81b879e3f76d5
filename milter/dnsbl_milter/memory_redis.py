"""Memory that all mail hosts of a fleet share, in Valkey or Redis.

Floor 2: the home of redis-py, which is an extra: a host with SQLite never imports this module.

A decision is one script on one key: one round trip, and nothing can come between its reading and its writing. (A
plain SET with NX and GET tells a first attempt from a retry in one trip as well, but takes a second one to
remember that it passed, and two hosts could do that at once.) Keys expire by themselves, so nothing is purged.

The script says the same as `greylist.attempt`, to which the tests hold it. The clock is the mail host's, as for the
other engine; expiry is by the server's, counted from the moment of writing, so the two need not agree.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis

from dnsbl_milter.memory_engine import Holdings, Remembered, Unavailable, digest, readable
from dnsbl_policy.greylist import Recollection, Terms, Triplet

PREFIX = "dnsbl-milter:1:"
"""Of every key, with the version of what is behind it: another version's hosts may share the server."""

TIMEOUT_SECONDS = 0.25
"""For a connection, and for each answer."""

_TOGETHER = 1000
_parse_url: Callable[[str], dict[str, Any]] = redis.connection.parse_url
_OPTIONS = ("ssl_", "socket_", "client_name")
"""What an address may set, by how it begins; redis-py takes much more there, a password and what would break the script's
answers included."""

_SCRIPT = """
local now, delay, window, remember = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kind, since = string.match(redis.call('GET', KEYS[1]) or '', '^([wp])([^\\n]+)')
local age = now - (tonumber(since) or math.huge)

local function keep(kind, life)
    redis.call('SET', KEYS[1], kind .. ARGV[1] .. '\\n' .. ARGV[5], 'EX', math.ceil(life) + 1)
end

if kind == 'p' and age <= remember then
    keep('p', remember)
    return 'known'
elseif kind == 'w' and age < delay then
    if age < 0 then
        keep('w', window)
    end
    return 'early'
elseif kind == 'w' and age <= window then
    keep('p', remember)
    return 'passed'
end
keep('w', window)
return 'deferred'
"""


class RedisEngine:
    """A connection for each of the threads that may call at once."""

    name = "redis"
    threads = 4

    def __init__(self, url: str, terms: Terms, password_file: str = "", timeout: float = TIMEOUT_SECONDS) -> None:
        """Connect to nothing yet. Raises ValueError for an address that could never be used."""
        self._arguments = (terms.delay, terms.window, terms.remember)
        self._pool = _pool(url, password_file, timeout)
        # Any, for redis-py's types leave open whether an answer is one or is still to be awaited.
        self._client: Any = redis.Redis(connection_pool=self._pool)
        self._attempt = self._client.register_script(_SCRIPT)
        self._place = urlsplit(url).netloc.rpartition("@")[2]

    def check(self) -> None:
        """Return if the server answers."""
        with self._errors():
            self._client.ping()

    def recall(self, triplet: Triplet, now: float) -> Recollection:
        """Answer an attempt and remember it. Raises `Unavailable`."""
        key = f"{_prefix(triplet.network)}{digest(triplet).hex()}"
        shown = f"{readable(triplet.sender)}\n{readable(triplet.recipient)}"
        with self._errors():
            # repr() writes every digit, so that script and policy reckon with the same number.
            answer = self._attempt(keys=[key], args=[repr(now), *self._arguments, shown])
        return Recollection(answer.decode())

    def show(self, network: str) -> list[Remembered]:
        """Return what is remembered of a network, the latest first. Raises `Unavailable`."""
        with self._errors():
            # A scan may give a key twice, when the server's table grows meanwhile.
            found = {key: value for keys in self._keys(_prefix(network)) for key, value in self._values(keys)}
        return sorted(map(_parsed, found.values()), key=lambda one: one.since, reverse=True)

    def forget(self, network: str) -> int:
        """Forget a network; return how many triplets that were. Raises `Unavailable`."""
        with self._errors():
            return sum(int(self._client.unlink(*keys)) for keys in self._keys(_prefix(network)))

    def holdings(self) -> Holdings:
        """Return how much is remembered, by going through all of it. Raises `Unavailable`."""
        waiting = passed = 0
        with self._errors():
            for keys in self._keys(PREFIX):
                kinds = [value[:1] for _, value in self._values(keys)]
                waiting += kinds.count(b"w")
                passed += kinds.count(b"p")
        return Holdings(waiting, passed, self._size())

    def close(self) -> None:
        """Close all connections; the next call opens one."""
        self._pool.disconnect()

    def _size(self) -> int | None:
        # A user that may do no more than it needs may not ask this.
        with contextlib.suppress(redis.RedisError):
            return int(self._client.info("memory")["used_memory"])
        return None

    def _keys(self, prefix: str) -> Iterator[list[bytes]]:
        """Go through the keys with a prefix, some at a time; the server serves others in between."""
        cursor = 0
        while True:
            cursor, keys = self._client.scan(cursor, match=f"{prefix}*", count=_TOGETHER)
            if keys:
                yield keys
            if cursor == 0:
                return

    def _values(self, keys: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        values = self._client.mget(keys)
        return ((key, value) for key, value in zip(keys, values, strict=True) if value is not None)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what redis-py and the system raise into `Unavailable`."""
        try:
            yield
        except redis.RedisError as fault:
            raise Unavailable(f"{self._place}: {_one_line(fault)}") from None
        except OSError as fault:
            # The file of a certificate; no connection may be left half made.
            self.close()
            raise Unavailable(f"{fault.filename or self._place}: {fault.strerror or fault}") from None


class _PasswordFile(redis.CredentialProvider):
    """Reads the password for each connection, so that a changed one needs no reload."""

    def __init__(self, user: str | None, path: Path) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the password, and the user in front of it where there is one."""
        try:
            password = self._path.read_text("utf-8", "surrogateescape").strip()
        except OSError as fault:
            # As a fault of redis-py's own, or it would keep the connection and use it without a password from then on.
            raise redis.AuthenticationError(f"{self._path}: {fault.strerror}") from None
        return (self._user, password) if self._user else (password,)


def _pool(url: str, password_file: str, timeout: float) -> redis.ConnectionPool:
    """Read an address with its options. Raises ValueError that says what is wrong, without the password."""
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0 and not parts.fragment and "@" not in parts.path + parts.query
    except ValueError:
        usable = False
    if not usable:
        # Not quoted: with such a character in it, what was read as port, path or options is a part of the password.
        raise ValueError("expected redis://host:6379/0; in a password, / ? # and @ are written %2F %3F %23 and %40")
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError(f"{parts.path}: expected the number of a database after the host, such as /0")
    for name, _ in parse_qsl(parts.query):
        if not name.startswith(_OPTIONS):
            raise ValueError(f"{name}: unknown option; options begin with {', '.join(_OPTIONS)}")
    # To redis-py, Valkey's own scheme is none.
    options = _parse_url(f"{parts.scheme.replace('valkey', 'redis')}{url[len(parts.scheme) :]}")
    if password_file:
        options.pop("password", None)
        options["credential_provider"] = _PasswordFile(options.pop("username", None), Path(password_file))
    if "connection_class" in options and options.get("ssl_cert_reqs") != "none":
        # Older versions of redis-py take any certificate that is signed, whoever it names.
        options.setdefault("ssl_check_hostname", True)
    # Nothing is tried twice, for the recipient would wait twice; the sender's own retry is the better one.
    ours: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2}
    pool = redis.ConnectionPool(**(ours | options))
    try:
        pool.connection_class(**pool.connection_kwargs)
    except TypeError as fault:
        raise ValueError(f"unknown option: {fault}") from None
    except redis.RedisError as fault:
        raise ValueError(_one_line(fault)) from None
    return pool


def _prefix(network: str) -> str:
    return f"{PREFIX}{network}:"


def _parsed(value: bytes) -> Remembered:
    head, _, shown = value.decode("utf-8", "replace").partition("\n")
    sender, _, recipient = shown.partition("\n")
    return Remembered(sender, recipient, head[:1] == "p", float(head[1:]))


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split()) or type(fault).__name__
