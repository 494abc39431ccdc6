"""One request on its way through the server."""

from __future__ import annotations

from bitheads.engine.serve.errors import HttpError
from bitheads.engine.serve.scheduler import Scheduler


class Visit:
    """One request on its way, in `scope["visit"]`; routes write down what it turned out to be.

    Attributes:
        id: the client's X-Request-ID, or one made up.
        client: whose it is, for shares of the server: the API key's, else the address's.
        error: the word of the error it ended with.
        reason: of bitheads_rejections.
        texts, tokens: of its inputs, None before they are known.
    """

    def __init__(self, request_id: str, client: str, scheduler: Scheduler) -> None:
        self.id = request_id
        self.client = client
        self.error: str | None = None
        self.reason: str | None = None
        self.texts: int | None = None
        self.tokens: int | None = None
        self._scheduler = scheduler
        self._is_announced = False

    def fail(self, error: HttpError) -> None:
        """It ends with this error."""
        self.error, self.reason = error.code, error.reason

    def announce(self) -> None:
        """See Scheduler.announce."""
        self._is_announced = True
        self._scheduler.announce()

    def retract(self) -> None:
        """See Scheduler.retract; once is enough, more does nothing."""
        if self._is_announced:
            self._is_announced = False
            self._scheduler.retract()
