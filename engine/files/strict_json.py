"""JSON that every host reads alike: no more than RFC 8259 has, and numbers that fit 64 bits.

Python's reader also takes NaN, whole numbers of any length, halves of surrogate pairs and hundreds
of levels, which others refuse or change; what is hashed or compared must not depend on the reader.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Levels of lists and objects within each other, at most."""

LEAST, MOST = -(1 << 63), (1 << 64) - 1
"""The least and the largest whole number."""


def loads(text: str | bytes) -> Any:
    """What the JSON says. Raises ValueError for what not every host reads alike."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        found = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(found)
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text in it has half a character, a lone surrogate") from None
    return found


def _whole(digits: str) -> int:
    if len(digits) > 20 or not LEAST <= int(digits) <= MOST:
        raise ValueError(f"a whole number of more than 64 bits: {digits:.30}")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"a number beyond float64: {digits:.30}")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_depth(found: Any) -> None:
    level, depth = [found], 0
    while level:
        lists = [item for item in level if isinstance(item, list | dict)]
        depth += bool(lists)
        if depth > MAX_DEPTH:
            raise _too_deep()
        level = [v for item in lists for v in (item.values() if isinstance(item, dict) else item)]


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects more than {MAX_DEPTH} levels deep")
