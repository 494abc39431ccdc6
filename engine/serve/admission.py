"""Who may ask, and how much of the server's memory a client may fill, whatever the protocol."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from bitheads.engine.serve.errors import HttpError, queue_full, timed_out
from bitheads.engine.serve.room import QueueFull
from bitheads.engine.serve.scheduler import Scheduler
from bitheads.engine.serve.settings import Settings
from bitheads.engine.serve.visit import TRACE_HEADERS, Visit

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+@-]{1,100}")


class Admission:
    """A server's keys, and its clients' shares. For the event loop's thread.

    Attributes:
        is_draining: whether no requests are taken any more.
    """

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._has_keys = bool(settings.api_keys)
        self._admin_keys = [key.encode() for key in settings.admin_keys]
        self._keys = [key.encode() for key in settings.api_keys] + self._admin_keys
        self._max_held_bytes = settings.max_held_bytes
        self._request_timeout_s = settings.request_timeout_s
        self._held_bytes: Counter[str] = Counter()
        self.is_draining = False

    def check_key(self, authorization: bytes, is_admin: bool = False) -> None:
        """Raises HttpError without a key that the server wants.

        Args:
            authorization: that header.
            is_admin: whether only an admin key will do.
        """
        if is_admin and not self._admin_keys:
            raise HttpError(
                403,
                "forbidden",
                "Heads cannot be changed: the server was started without --admin-keys.",
                "unauthorized",
            )
        keys: Sequence[bytes] = self._admin_keys if is_admin else self._keys
        if not is_admin and not self._has_keys:
            keys = []
        scheme, given = _split(authorization)
        is_bearer = scheme.lower() == b"bearer"
        # Every key is compared, whatever the first ones said: time tells nothing.
        same = [hmac.compare_digest(given, key) for key in keys]
        if keys and not (is_bearer and any(same)):
            raise HttpError(
                401,
                "unauthorized",
                "No valid key. Send the header Authorization: Bearer KEY, with an admin key for "
                "changing heads.",
                "unauthorized",
                headers={"www-authenticate": "Bearer"},
            )

    def visit(self, host: str, method: str, headers: Mapping[bytes, bytes]) -> Visit:
        """A request, before anything of it is looked at."""
        return Visit(
            _request_id(headers.get(b"x-request-id", b"")),
            self._client(host, headers.get(b"authorization")),
            self._scheduler,
            host,
            method,
            {name: headers.get(name.encode(), b"").decode("latin-1") for name in TRACE_HEADERS},
        )

    def timed_out(self) -> HttpError:
        """What a request ends with that was not answered in time."""
        return timed_out(self._request_timeout_s, self._scheduler.retry_after_s())

    def _client(self, host: str, authorization: bytes | None) -> str:
        """See Visit.client. A key is what follows; whether it is a valid one is looked at later."""
        if self._has_keys and authorization is not None:
            # The key alone: "bearer" can be spelled in many ways, and each would have a share.
            return "key " + hashlib.sha256(_split(authorization)[1]).hexdigest()
        return network_of(host)

    def check_room(self, client: str) -> None:
        """Before anything is done: in an overload, refusing must cost next to nothing."""
        try:
            self._scheduler.check_room(client)
        except QueueFull as full:
            raise queue_full(full.retry_after_s) from None

    def hold(self, client: str, num_bytes: int, limit: int) -> None:
        """Raises HttpError if there is no room for that many more; they count nevertheless.

        Args:
            limit: bytes of a body at most.
        """
        self._held_bytes[client] += num_bytes
        # A client that has more than one body may have as much as is left to the others.
        left = self._max_held_bytes - self._held_bytes.total()
        if left < 0 or self._held_bytes[client] > max(left, limit):
            raise queue_full(self._scheduler.retry_after_s())

    def let_go(self, client: str, num_bytes: int) -> None:
        """Of what was held."""
        self._held_bytes[client] -= num_bytes
        if self._held_bytes[client] == 0:
            del self._held_bytes[client]


def network_of(host: str) -> str:
    """Whose an address is: whoever has one of IPv6 has all behind its first half."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    # Of a socket for both, where those of IPv4 have the same first half.
    return str(address.ipv4_mapped or f"{address.packed[:8].hex(':', 2)}::/64")


def _request_id(given: bytes) -> str:
    """The client's, if it could not be taken for anything else in a log."""
    return given.decode() if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _split(authorization: bytes) -> tuple[bytes, bytes]:
    """Scheme and key of the header, without blanks around them."""
    scheme, _, key = authorization.partition(b" ")
    return scheme, key.strip()
