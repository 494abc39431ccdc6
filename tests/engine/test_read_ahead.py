"""Reading ahead: the same items, a few made early, errors in their turn, no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bitheads.engine.process.read_ahead import read_ahead


def test_items_come_in_order_and_few_are_made_early() -> None:
    made = 0

    def items() -> Iterator[int]:
        nonlocal made
        for i in range(50):
            made += 1
            yield i

    for seen, item in enumerate(read_ahead(items(), ahead=2)):
        assert item == seen
        assert made <= seen + 1 + 2
    assert made == 50
    assert list(read_ahead(iter([]))) == []


def test_items_are_made_by_another_thread() -> None:
    threads = {*read_ahead(threading.current_thread().name for _ in range(5))}
    assert len(threads) == 1
    assert threads != {threading.current_thread().name}


def test_an_error_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    ahead = read_ahead(items(), ahead=5)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    ahead = read_ahead(iter(range(100)))
    assert next(ahead) == 0
    assert threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before
