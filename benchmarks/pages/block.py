"""A block of a page, which a routine's table fills in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """What stands between `<!-- table: NAME -->` and `<!-- end -->`.

    Attributes:
        make: a stored result (benchmarks.record) -> Markdown.
        result: whose result it shows, None for that of the routine that has the block.
        page: the document, from the repository's root.
    """

    name: str
    make: Callable[[dict[str, Any]], str]
    result: str | None = None
    page: str = "docs/benchmarks.md"
