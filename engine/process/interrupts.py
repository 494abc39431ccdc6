"""Ctrl-C where it would lose work: it waits for the end of a step that is lost if half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C during what is inside is handled after it, by the handler that was there before.

    Where SIGINT is ignored, ends the process at once, or is handled outside of Python, it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    # Ctrl-C interrupts the main thread alone.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held_back: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held_back.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held_back:
        before(*held_back[0])
