"""Processes that measure: what they say when they fail, and their memory."""

from __future__ import annotations

import pytest

from benchmarks.processes import child, memory


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(child.ChildError, match="KeyError: 'texts'"):
        child.run("benchmarks.memory.child", {})


def test_peak_memory_is_this_process_s_own() -> None:
    before = memory.peak_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert memory.peak_bytes() >= max(before, memory.now_bytes())
    assert memory.now_bytes() > len(block)
