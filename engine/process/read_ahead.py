"""The next items of an iterator, made by another thread."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bitheads.engine.process.forked import check_process

Item = TypeVar("Item")


class _End:
    """Stands for no item."""


def read_ahead(items: Iterator[Item], ahead: int = 1) -> Generator[Item, None, None]:
    """The items in order, up to `ahead` of them made before they are asked for.

    Besides those one more may be in the making. An error of `items` is raised in its turn. Closing
    the generator waits for the item in the making.
    """
    pool = ThreadPoolExecutor(1, "bitheads-read-ahead")
    waiting: deque[Future[Item | _End]] = deque()
    end, process = _End(), os.getpid()
    try:
        while True:
            while len(waiting) <= ahead:
                waiting.append(pool.submit(next, items, end))
            check_process(process, "what is being read")
            item = waiting.popleft().result()
            if isinstance(item, _End):
                return
            yield item
            del item  # or one more would be kept while the next is waited for
    finally:
        pool.shutdown(cancel_futures=True)
