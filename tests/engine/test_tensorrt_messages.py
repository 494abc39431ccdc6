"""What TensorRT says of a failure, as it and CUDA word it."""

from __future__ import annotations

import pytest

from bitheads.engine.sessions.tensorrt import lacks_memory


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "[defaultAllocator.cpp::allocateAsync::48] Error Code 1: Cuda Runtime (out of memory)",
            True,
        ),
        ("OutOfMemory (Requested size was 1024 bytes)", True),
        ("Error Code 2: OutOfMemory", True),
        ("Cuda Runtime (an illegal memory access was encountered)", False),
        ("Error Code 3: API Usage Error (Parameter check failed)", False),
        ("it did not say why", False),
    ],
)
def test_memory_that_ran_out(said: str, expected: bool) -> None:
    assert lacks_memory(said) is expected
