"""A table of characters as sentencepiece writes it, which a CharsMapNormalization step reads.

A trie of the keys' UTF-8 bytes as a double array (darts-clone's units of 32 bits), then the values:

    uint32 bytes of the trie | units | values, each ended by a NUL

Of a node whose children begin at `base`, the child of byte b is the unit `base ^ b`, and the value
of the key that ends there is the unit `base` itself.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

LEAF, HAS_VALUE, OFFSET_SHIFT = 1 << 31, 1 << 8, 10
EMPTY = LEAF
"""A unit that is no child: the label of a leaf is no byte."""
BLOCK = 256
TRIES = 64
"""Free units that are tried for a node before the array is made longer."""

Node = dict[int, "Node | int"]
"""Byte -> child; 0 -> where the key's value begins, as no key has a NUL."""


def charsmap(table: Mapping[str, str]) -> bytes:
    """The table in that form; keys and values must be without NUL."""
    values = bytearray()
    root: Node = {}
    places: dict[str, int] = {}
    for key, value in table.items():
        if value not in places:
            places[value] = len(values)
            values += value.encode() + b"\0"
        node = root
        for byte in key.encode():
            child = node.setdefault(byte, {})
            assert isinstance(child, dict)
            node = child
        node[0] = places[value]
    units = _double_array(root)
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + bytes(values)


def _double_array(root: Node) -> list[int]:
    units = [0] + [EMPTY] * (BLOCK - 1)
    free = list(range(BLOCK - 1, 0, -1))  # tried from the end; some have been taken since
    taken = bytearray(BLOCK)
    taken[0] = 1
    bases: set[int] = set()
    waiting: list[tuple[Node, int, int]] = [(root, 0, 0)]  # node, its unit, its label
    while waiting:
        node, place, label = waiting.pop()
        while free and taken[free[-1]]:
            free.pop()
        base = _base(node, free, taken, bases)
        if base is None:
            base = len(units)
            units += [EMPTY] * BLOCK
            taken += bytes(BLOCK)
            free = [*free[-BLOCK:], *range(base + BLOCK - 1, base - 1, -1)]
        bases.add(base)
        units[place] = (base ^ place) << OFFSET_SHIFT | (HAS_VALUE if 0 in node else 0) | label
        for byte, child in node.items():
            taken[base ^ byte] = 1
            if isinstance(child, dict):
                waiting.append((child, base ^ byte, byte))
            else:
                units[base] = LEAF | child
    assert len(units) < 1 << 21, "an offset that takes more than a unit's bits"
    return units


def _base(node: Node, free: list[int], taken: bytearray, bases: set[int]) -> int | None:
    """Where the node's children fit, None if they fit near none of the next free units.

    No two nodes begin at one place, or a byte would lead from one to the other's children.
    """
    first, *others = node
    for place in free[-TRIES:][::-1]:
        base = place ^ first
        if taken[place] or base in bases:
            continue
        if not any(taken[base ^ byte] for byte in others):
            return base
    return None
