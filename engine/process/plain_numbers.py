"""Numbers in texts have a decimal point, whatever locale the program has set.

C's own functions read "0.5" as 0 where the locale's decimal sign is a comma, and libraries use
them: ONNX Runtime for the constants of operators that it computes by other operators, such as Gelu.
"""

from __future__ import annotations

import ctypes
import locale
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def _find_libc() -> Any:
    libc = ctypes.PyDLL(None)
    try:
        for name in ("duplocale", "freelocale", "newlocale", "uselocale"):
            function = getattr(libc, name)
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        libc.freelocale.restype = None
        libc.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    except AttributeError:  # a system without locales for single threads
        return None
    return libc


_LIBC = _find_libc()


@contextmanager
def plain_numbers() -> Iterator[None]:
    """C's functions read and write numbers as in the locale "C", in this thread alone.

    It is a decorator, too. Threads that are started within it have the program's locale.
    """
    if _LIBC is None:
        yield
        return
    others = _LIBC.duplocale(_LIBC.uselocale(None))  # of other kinds, such as what a letter is
    plain = _LIBC.newlocale(1 << locale.LC_NUMERIC, b"C", others)
    if not plain:
        raise MemoryError("newlocale: got no locale 'C', which every system has.")
    before = _LIBC.uselocale(plain)
    try:
        yield
    finally:
        _LIBC.uselocale(before)
        _LIBC.freelocale(plain)
