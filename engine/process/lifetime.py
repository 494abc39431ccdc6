"""How long something may be called: until it is closed, and in the process that made it."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from types import TracebackType

from bitheads.engine.errors import ClosedError, InputError
from bitheads.engine.process.forked import check_process


def give_back_memory() -> None:
    """What the C library keeps of freed memory for later goes back to the system, where it can."""
    with suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


class Lifetime:
    """The lifetime of an object that holds memory or threads. A call of it is a `with` block.

    Calls may be made by several threads and within each other.
    """

    def __init__(self, what: str) -> None:
        """what: its name in errors, such as "this engine"."""
        self._what = what
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._callers: list[int] = []
        self._is_ended = False
        self._is_freed = False

    def __enter__(self) -> None:
        """Raises ClosedError or ForkedError."""
        check_process(self._process, self._what)
        caller = threading.get_ident()
        # Without the lock, for a call takes only microseconds in places: whoever ends it looks for
        # callers after saying so, and callers look for that after they are there.
        self._callers.append(caller)
        if self._is_ended and self._callers.count(caller) == 1:
            self._leave(caller)
            self._refuse()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(threading.get_ident())

    def _leave(self, caller: int) -> None:
        self._callers.remove(caller)
        if self._is_ended:
            with self._changed:
                self._changed.notify_all()

    def check(self) -> None:
        """Raises ClosedError or ForkedError where a call would."""
        check_process(self._process, self._what)
        if self._is_ended:
            self._refuse()

    def end(self) -> bool:
        """From now on calls are refused; waits for those that run.

        Returns whether to free what there is: not the second time, nor in another process, where
        nothing that was loaded can be freed.

        Raises InputError within a call, which would wait for itself.
        """
        if os.getpid() != self._process:
            return False
        with self._changed:
            if threading.get_ident() in self._callers:
                raise InputError(
                    f"close(): got a call of it within another call of {self._what}, in the same "
                    "thread. Call it when that has returned."
                )
            self._is_ended = True
            self._changed.wait_for(lambda: not self._callers)
            is_first, self._is_freed = not self._is_freed, True
        return is_first

    def _refuse(self) -> None:
        raise ClosedError(f"{self._what} is closed: got a call, expected none. Load it again.")
