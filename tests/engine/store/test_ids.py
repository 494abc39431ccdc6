"""The index of ids against a set of Python's."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bitheads.engine.store import ids
from bitheads.engine.store.ids import IdIndex


def test_like_a_set() -> None:
    chance = random.Random(0)
    index, known = IdIndex(), set[str]()
    for _ in range(200):
        asked = [f"id-{chance.randrange(3000)}" for _ in range(chance.randrange(40))]
        assert index.contains(asked).tolist() == [name in known for name in asked]
        new = set(asked) - known
        index.add(new)
        known |= new
        assert len(index) == len(known)
    assert len(index._runs) < 12


def test_halves_of_hashes_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(names: list[str]) -> ids.Keys:
        numbers = np.array([int(name) for name in names], np.uint64)
        return numbers // np.uint64(5), numbers

    monkeypatch.setattr(ids, "_keys", keys)
    index = IdIndex()
    index.add([str(i) for i in range(0, 100, 2)])
    found = index.contains([str(i) for i in range(120)])
    assert found.tolist() == [i < 100 and i % 2 == 0 for i in range(120)]
    assert not index.contains([]).size
