"""Progress bars, and what stands for one where none is wanted."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class _NoBar:
    """Not tqdm's own: code that runs for the first time is much of the time that one text takes."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing was shown."""

    def update(self, count: int) -> None:
        """Shows nothing."""


def progress_bar(
    total: int | None, is_shown: bool, what: str = "encode", unit: str = "text"
) -> Any:
    """A bar on standard error, for `total` texts or other units; None: their number is unknown."""
    return tqdm(total=total, unit=unit, desc=what) if is_shown else _NoBar()
