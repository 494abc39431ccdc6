"""Which files beside an ONNX graph have its weights: read as protobuf, in whatever order.

onnx itself, whose parser would say so, is no part of the runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

LOCATION = b"location"
"""Key of the entries that name files."""

FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Messages of onnx.proto that lead to entries; `host/src/external_files.cpp` has the same list."""

MAX_DEPTH = 64
"""Levels of messages within each other, as of graphs within graphs, at most."""


def external_files(graph: Path) -> set[str]:
    """Names of the files; all that an entry gives, of which the last would count.

    Raises ValueError for what is not protobuf.
    """
    if not graph.is_file() or not graph.stat().st_size:
        return set()
    with graph.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if content.find(LOCATION) < 0:  # nearly always, and found out in a moment
            return set()
        return {name.decode("utf-8", "replace") for name in _names(content)}


class _Field(NamedTuple):
    """A field with a length: its number, and where its bytes are."""

    number: int
    start: int
    end: int


def _names(content: mmap) -> Iterator[bytes]:
    left = [("model", 0, len(content), 0)]
    while left:
        kind, start, end, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"messages more than {MAX_DEPTH} levels deep")
        fields = list(_fields(content, start, end))
        if kind == "entry":
            if any(f.number == 1 and content[f.start : f.end] == LOCATION for f in fields):
                yield from (content[f.start : f.end] for f in fields if f.number == 2)
            continue
        within = FIELDS[kind]
        left += [
            (within[f.number], f.start, f.end, depth + 1) for f in fields if f.number in within
        ]


def _fields(content: mmap, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        key, at = _varint(content, at, end)
        wire, number = key & 7, key >> 3 & 0x1FFFFFFF
        if wire == 0:
            _, at = _varint(content, at, end)
        elif wire == 2:
            size, at = _varint(content, at, end)
            yield _Field(number, at, min(at + size, end))
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of the kind {wire}")
        if at > end:
            raise ValueError("a field that goes past its end")


def _varint(content: mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")
