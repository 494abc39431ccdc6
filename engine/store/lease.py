"""One writer at a time where there are no file locks: an object that one of them alone can make.

The lock is an object `.lock` beside the parts, with its owner and when its lease ends. It is made
by a put that fails if there is one (If-None-Match: *), and the owner renews the lease by puts that
fail unless it is still the own one (If-Match). So does whoever takes over a lease that has ended,
which is how a writer that was killed is got rid of: of several that try, one succeeds. A writer
that lost its lease, because it slept or the network did, publishes nothing more.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from datetime import datetime, timezone

from bitheads.engine.errors import StoreError
from bitheads.engine.store.lock_objects import LockChanged, LockObject

LEASE_S = 60.0
"""How long a killed writer keeps others out, at most. Clocks must differ by less."""

RENEWALS = 4
"""Times per lease that it is renewed, so that some may fail."""

logger = logging.getLogger("bitheads")


def owner_of(data: bytes) -> str | None:
    """Whose lease an object says it is; None of one that holds none."""
    try:
        return str(json.loads(data)["owner"])
    except (ValueError, KeyError, TypeError):
        return None


class Lease:
    """Held from `take` to `let_go`, by one of all processes; it renews itself."""

    def __init__(self, lock: LockObject, shown: str) -> None:
        """
        Args:
            shown: the folder, in errors.
        """
        self._lock, self._shown, self._lease_s = lock, shown, LEASE_S
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._tag = ""
        self._is_lost = False
        self._ends_s = 0.0  # time.monotonic
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="bitheads-lease", daemon=True)

    def take(self) -> None:
        """Raises StoreError if another process has it, or nobody can."""
        begun_s = time.monotonic()
        data = self._data()
        try:
            self._tag = self._lock.create(data)
        except LockChanged:
            self._tag = self._take_over(data)
        self._ends_s = begun_s + self._lease_s
        try:
            if not self._lock.is_exclusive():
                logger.warning(
                    "%s: its server overwrites objects that are there, whatever is asked of it, "
                    "so nothing keeps two writers apart: see to it that there is one at a time",
                    self._shown,
                )
            self._thread.start()
        except BaseException:
            self.let_go()
            raise

    def _take_over(self, data: bytes) -> str:
        """Raises StoreError unless the lease that is there has ended, or is the own one."""
        found = self._lock.read()
        if found is None:  # it was let go just now
            try:
                return self._lock.create(data)
            except LockChanged:
                raise self._held("which began just now") from None
        there, tag = found
        try:
            said = json.loads(there)
            owner, ends = str(said["owner"]), float(said["ends"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._shown}: its object .lock holds no lease ({error}). If nobody writes "
                "there, remove it."
            ) from error
        if owner == self.owner:
            return tag
        if ends > time.time():
            until = datetime.fromtimestamp(ends, timezone.utc).isoformat(timespec="seconds")
            raise self._held(f"{owner}, whose lease ends at {until} unless it is renewed")
        try:
            return self._lock.replace(data, tag)
        except LockChanged:
            if (own := self._own_tag()) is None:
                raise self._held("which began just now") from None
            return own

    def _own_tag(self) -> str | None:
        """The object's, if it is the own one all the same: a put may succeed and its answer be
        lost, and its condition not hold when it is sent again. None if it is another's, or gone."""
        found = self._lock.read()
        return found[1] if found is not None and self._is_own(found[0]) else None

    def _is_own(self, data: bytes) -> bool:
        return owner_of(data) == self.owner

    def _held(self, by: str) -> StoreError:
        return StoreError(
            f"{self._shown}: another process is writing there ({by}), expected one at a time. Wait "
            "for it to end, or, if it was killed, for its lease to."
        )

    def _data(self) -> bytes:
        return json.dumps({"owner": self.owner, "ends": time.time() + self._lease_s}).encode()

    def _renew(self) -> None:
        while not self._ending.wait(self._lease_s / RENEWALS):
            begun_s = time.monotonic()
            try:
                self._tag = self._put_again()
            except LockChanged:
                self._is_lost = True
                return
            except StoreError:
                continue  # until it ends
            self._ends_s = begun_s + self._lease_s

    def _put_again(self) -> str:
        """Raises LockChanged if it is another's by now."""
        data = self._data()
        try:
            return self._lock.replace(data, self._tag)
        except LockChanged:
            found = self._lock.read()
            if found is None or not self._is_own(found[0]):
                raise
            # What is there is this put, or one before it, of which the answer was lost.
            return found[1] if found[0] == data else self._lock.replace(data, found[1])

    def check(self) -> None:
        """Raises StoreError if the lease was lost, so that another process may be writing."""
        if self._is_lost or time.monotonic() >= self._ends_s:
            raise StoreError(
                f"{self._shown}: the lease of this writer ended before it could be renewed, so "
                "another process may be writing there. Every part there is whole: run the same "
                "command again."
            )

    def let_go(self) -> None:
        """Leaves the object to nobody. What cannot be removed ends by itself."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()
        if not self._is_lost:
            try:
                self._lock.remove(self._own_tag() or self._tag)
            except (LockChanged, StoreError) as error:
                logger.warning("%s: its lock could not be removed (%s)", self._shown, error)
