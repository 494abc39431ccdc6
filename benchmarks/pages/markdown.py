"""What tables share: their source, and figures for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def source(stored: dict[str, Any], how: str | None = None) -> str:
    """Where the numbers come from, under every table.

    Args:
        how: on what, if not on the machine that stored them.
    """
    cores = f"{stored['cores']} core{'s' if stored['cores'] > 1 else ''}"
    on = f"{cores} of {stored['cpu']}" if how is None else how
    return (
        f"\n`{stored['command']}`, {stored['date']}, {on}, "
        f"[stored result](../benchmarks/results/{stored['name']}.json)."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """The lines of a table: its first `left` columns are aligned left, all others right."""
    return [
        f"|{'|'.join(f' {name} ' if name else ' ' for name in head)}|",
        f"|{'---|' * left}{'---:|' * (len(head) - left)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def size(count: float) -> str:
    """Bytes for people: 128 B, 6.4 KB, 2.5 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def duration(us: float) -> str:
    """Microseconds for people, in the unit that suits them."""
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if us >= factor:
            return f"{us / factor:.3g} {unit}"
    return f"{us:.3g} us"
