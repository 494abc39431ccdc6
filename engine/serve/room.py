"""Whether there is room for a request: by who waits already, for how many tokens, and how long."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

ENOUGH_TOKENS = 4096
"""Tokens that are encoded before any time is believed: first calls take long."""


PIECES = 64
"""Small requests that make up the bound: a request that is no larger is encoded whole before those
of its client that came later."""

REMEMBERED_TOKENS = 1 << 16
"""Tokens that are encoded until what was measured before counts a third."""


class QueueFull(Exception):
    """There is no room for a request now.

    Attributes:
        retry_after_s: when there should be.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class TooLong(Exception):
    """A request takes longer than any may, if nothing else is there.

    Attributes:
        tokens: of it.
        needed_s: seconds it takes, about.
    """

    def __init__(self, tokens: int, needed_s: float) -> None:
        super().__init__(tokens, needed_s)
        self.tokens = tokens
        self.needed_s = needed_s


@dataclass
class _Load:
    """What a client has there: requests, and tokens that are not encoded yet."""

    requests: int = 0
    tokens: int = 0


class Room:
    """What is there of each client, and what more may come. Not thread-safe, but for `check`.

    While a request is encoded, clients have equal shares, and of a client's requests every one
    goes on (engine.serve.fair_queue). So what a request of n tokens waits for is, of each other
    client, as much as it has itself, and of each request of its own client, n tokens, or a small
    request whole; and no more than there is. That sum is bounded, in tokens and by the time it
    takes. So a small request finds room however much others have waiting, and what is bounded is
    work of its like.
    """

    def __init__(self, max_tokens: int, max_wait_s: float, max_alone_s: float) -> None:
        """
        Args:
            max_tokens: see above; a request of more is taken if nothing else is there.
            max_wait_s: time that may take, by what was measured so far.
            max_alone_s: time that a request may take if nothing else is there.
        """
        self.max_tokens = max_tokens
        self._max_wait_s = max_wait_s
        self._max_alone_s = max_alone_s
        self._clients: dict[Hashable, _Load] = {}
        self._tokens = 0
        self._measured_tokens = self._measured_s = 0.0
        self._seen_tokens = 0

    @property
    def tokens(self) -> int:
        """Tokens that are there and not encoded yet."""
        return self._tokens

    def check(self, client: Hashable, tokens: int) -> None:
        """Raises QueueFull if so many tokens of a client would not be taken now, or TooLong."""
        if self.seconds(tokens) > self._max_alone_s:
            raise TooLong(tokens, self.seconds(tokens))
        if self._tokens == 0:
            return
        before = self._tokens + tokens
        if before > self.max_tokens or self.seconds(before) > self._max_wait_s:
            before = self._before(client, tokens)
        if before > self.max_tokens or self.seconds(before) > self._max_wait_s:
            raise QueueFull(self.seconds(before) or 1.0)

    def _before(self, client: Hashable, tokens: int) -> int:
        """What a request of so many tokens waits for, itself included; see the class."""
        loads = list(self._clients.items())  # one step: others may add some meanwhile
        piece = max(tokens, self.max_tokens // PIECES)
        waits = {name: min(load.tokens, load.requests * piece) for name, load in loads}
        own = waits.pop(client, 0) + tokens
        return own + sum(min(others, own) for others in waits.values())

    def add(self, client: Hashable, tokens: int) -> None:
        """A request came."""
        self._tokens += tokens
        self._change(client, 1, tokens)

    def encoded(self, client: Hashable, tokens: int) -> None:
        """Some of its tokens are encoded, or will not be."""
        self._tokens -= tokens
        self._change(client, 0, -tokens)

    def end(self, client: Hashable) -> None:
        """A request has ended."""
        self._change(client, -1, 0)

    def forget(self) -> None:
        """All that is there: nothing of it will be encoded."""
        self._clients.clear()
        self._tokens = 0

    def _change(self, client: Hashable, requests: int, tokens: int) -> None:
        load = self._clients.setdefault(client, _Load())
        load.requests += requests
        load.tokens += tokens
        if load.requests == 0 and load.tokens == 0:  # what was cancelled may be running
            del self._clients[client]

    def measured(self, tokens: int, took_s: float) -> None:
        """A batch of so many tokens, what a call costs beside them included, took so long.

        Where several run at the same time, it is its share of the time.
        """
        self._seen_tokens += tokens
        # Of more tokens more can be learned; what was many tokens ago counts less.
        kept = max(0.0, 1 - tokens / REMEMBERED_TOKENS)
        self._measured_tokens = kept * self._measured_tokens + tokens * tokens
        self._measured_s = kept * self._measured_s + tokens * took_s

    def seconds(self, tokens: int) -> float:
        """Seconds that so many tokens take; 0 before enough was measured."""
        if self._seen_tokens < ENOUGH_TOKENS:
            return 0.0
        return tokens * self._measured_s / self._measured_tokens
