"""Calls in threads share codes and heads, and nothing else.

`SANITIZE=thread tests/kernels/sanitize.sh` runs this under ThreadSanitizer. It sees a race only
between calls that overlap without Python's lock between them: each takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from head_cases import (
    QUANTIZATIONS,
    assert_same_bits,
    lay_out,
    make_head,
    mixed_sizes,
    predict,
    random_case,
)

THREADS = 4


def run_together(works: list[Callable[[], None]]) -> None:
    """Each in a thread of its own, all at once."""
    start = Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        start.wait()
        work()

    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(run, work) for work in works]:
            done.result()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_same_call_in_every_thread(level: str, quantization: str) -> None:
    case = random_case(quantization, 130, mixed_sizes(8, 5), (1, 17, 40, 100) * 4)

    def work() -> None:
        for _ in range(3):
            assert_same_bits(predict(case, level), case.expected)

    run_together([work] * THREADS)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_texts_and_heads_split_among_threads(level: str, quantization: str) -> None:
    case = random_case(quantization, 130, mixed_sizes(8, 5), (1, 17, 40, 100) * 4)

    def work_on(texts: slice, heads: slice) -> Callable[[], None]:
        expected = [logits[texts] for logits in case.expected[heads]]

        def work() -> None:
            for _ in range(3):
                assert_same_bits(predict(case, level, texts=texts, heads=heads), expected)

        return work

    run_together([work_on(slice(4 * i, 4 * i + 4), slice(None)) for i in range(4)])
    run_together([work_on(slice(None), slice(2 * i, 2 * i + 2)) for i in range(4)])


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_heads_are_laid_out_in_threads(quantization: str) -> None:
    head = make_head(0, quantization, 256, attention_heads=4)
    expected = lay_out(head).tobytes()

    def work() -> None:
        assert lay_out(head).tobytes() == expected

    run_together([work] * THREADS)
