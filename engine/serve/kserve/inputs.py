"""Input tensors: the texts of a request, and which outputs it asks for."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bitheads.engine.errors import InputError
from bitheads.engine.serve.errors import too_large
from bitheads.engine.types import Text

TEXT, PAIR = "text", "text_pair"


@dataclass(frozen=True)
class Asked:
    """An output that is asked for.

    Attributes:
        classes: of how many of its labels, the likeliest first (Triton's `class_count`); 0: all as
            they are.
        is_binary: whether over HTTP its bytes follow the JSON.
    """

    name: str
    classes: int = 0
    is_binary: bool = False


def check_tensor(
    name: Any, datatype: Any, shape: Any, parameters: Mapping[str, Any], max_texts: int
) -> int:
    """How many texts an input has. Raises InputError, or HttpError for too many."""
    if name not in (TEXT, PAIR):
        raise InputError(f"inputs: expected tensors named {TEXT!r} and {PAIR!r}.")
    check_memory(name, parameters)
    if datatype != "BYTES":
        raise InputError(f"{name}: got datatype {datatype!r}, expected 'BYTES'.")
    if not _is_shape(shape):
        raise InputError(f"{name}: got shape {shape!r}, expected [texts] or [texts, 1].")
    count: int = shape[0]
    if count > max_texts:
        raise too_large(name, f"{count} texts", str(max_texts), "--max-texts")
    return count


def check_memory(name: str, parameters: Collection[str]) -> None:
    """Raises InputError for a tensor that is in memory which both sides are to share."""
    if "shared_memory_region" in parameters:
        raise InputError(
            f"{name}: got shared_memory_region, but this server shares no memory with its clients. "
            "Send the tensor in the request, and take the outputs from the answer."
        )


def check_count(name: str, strings: Sequence[object], shape: Sequence[int]) -> None:
    """Raises InputError if there are not as many as the shape says."""
    expected = shape[0]
    if len(strings) != expected:
        got = "more" if len(strings) > expected else len(strings)
        raise InputError(f"{name}: got {got} strings, expected shape {[*shape]}.")


def read_strings(binary: memoryview, name: str, expected: int) -> list[str]:
    """Each is its length, four bytes, little endian, and so many bytes of UTF-8.

    One more than expected are read at most: that says it as well as millions. Raises InputError.
    """
    return list(islice(_strings(binary, name), expected + 1))


def decode(part: bytes | memoryview, name: str) -> str:
    """Raises InputError."""
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not valid UTF-8 ({error}).") from error


def texts_of(tensors: Mapping[str, list[str]]) -> list[Text]:
    """The texts, or pairs, of the input tensors by name. Raises InputError."""
    if TEXT not in tensors:
        raise InputError(f"inputs: expected a tensor {TEXT!r}.")
    if PAIR not in tensors:
        return list(tensors[TEXT])
    if len(tensors[PAIR]) != len(tensors[TEXT]):
        raise InputError(
            f"{PAIR}: got {len(tensors[PAIR])} texts for {len(tensors[TEXT])} in {TEXT!r}."
        )
    return list(zip(tensors[TEXT], tensors[PAIR], strict=True))


def read_classes(name: str, parameters: Mapping[str, Any]) -> int:
    """See Asked.classes. Raises InputError."""
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InputError(f"{name}: got classification {classes!r}, expected a number of labels.")
    return classes


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= 2
        and all(type(size) is int and 0 <= size <= 1 << 31 for size in shape)
        and shape[1:] in ([], [1])
    )


def _strings(binary: memoryview, name: str) -> Iterator[str]:
    size = len(binary)
    start = 0
    while start < size:
        if start + 4 > size:
            raise InputError(f"{name}: ends within a length.")
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if start + length > size:
            raise InputError(f"{name}: a string of {length} bytes goes past the end.")
        yield decode(binary[start : start + length], name)
        start += length
