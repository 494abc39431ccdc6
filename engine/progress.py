"""Progress bars, and what stands for one where none is wanted."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class _NoBar:
    """Not tqdm's own: of the time that one text takes, much is what cold code takes to run once."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing was shown."""

    def update(self, count: int) -> None:
        """Shows nothing."""


def progress_bar(
    total: int | None, is_shown: bool, what: str = "encode", unit: str = "text"
) -> Any:
    """On standard error, for `total` texts or other units; None: for an unknown number of them."""
    return tqdm(total=total, unit=unit, desc=what) if is_shown else _NoBar()
