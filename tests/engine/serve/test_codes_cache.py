"""The cache of codes: it holds what comes again, and never more bytes than it may."""

from __future__ import annotations

import tracemalloc
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitheads.engine.serve.codes_cache import ENTRY_BYTES, NEW_SHARE, CodesCache, Keys
from bitheads.engine.texts.tokenize import Tokens


def key(number: int) -> bytes:
    return blake2b(number.to_bytes(16, "little"), digest_size=16).digest()


def tokens(ids: list[int], num_first: int, is_pair: bool = False) -> Tokens:
    return Tokens(np.array(ids, np.int32), num_first, False, is_pair)


def test_a_key_is_of_tokens_and_their_types() -> None:
    key_of = Keys()
    one = key_of(tokens([101, 7, 102], 3))
    assert one == key_of(tokens([101, 7, 102], 3, is_pair=True)), "codes do not depend on that"
    others = [tokens([101, 7, 102], 2), tokens([101, 7, 102, 0], 3), tokens([101, 8, 102], 3)]
    assert len({one, *map(key_of, others)}) == 4
    assert Keys()(tokens([101, 7, 102], 3)) != one, "nobody outside can foresee it"


@given(
    st.integers(0, 40 * ENTRY_BYTES),
    st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 900)), max_size=300),
)
def test_it_gives_what_it_was_given_and_keeps_to_its_bytes(
    max_bytes: int, events: list[tuple[bool, int, int]]
) -> None:
    cache, given_to = CodesCache(max_bytes), dict[int, bytes]()
    for is_put, number, size in events:
        if is_put:
            given_to.setdefault(number, bytes([number]) * size)
            cache.put(key(number), given_to[number])
        elif (found := cache.get(key(number))) is not None:
            assert found == given_to[number]
        assert 0 <= cache.nbytes <= max_bytes
        assert len(cache) * ENTRY_BYTES <= cache.nbytes


def test_a_large_text_does_not_push_out_all_others() -> None:
    cache = CodesCache(100_000)
    for i in range(20):
        cache.put(key(i), bytes(1000))
    cache.put(key(99), bytes(100_000 // NEW_SHARE))
    assert cache.get(key(99)) is None
    assert all(cache.get(key(i)) for i in range(20))


def test_what_comes_again_outlasts_what_comes_once() -> None:
    """100 texts come again and again, with 1,000 others, that come once, in between; the cache has
    room for 300. One that drops what was not asked for longest would have none of them."""
    cache = CodesCache(300 * (1000 + ENTRY_BYTES))
    hits = asked = 0
    fresh = 10**6
    for round_ in range(60):
        for i in range(100):
            asked += round_ >= 20
            if cache.get(key(i)) is not None:
                hits += round_ >= 20
            else:
                cache.put(key(i), bytes(1000))
            for _ in range(10):
                fresh += 1
                assert cache.get(key(fresh)) is None
                cache.put(key(fresh), bytes(1000))
    assert hits / asked > 0.95


@pytest.mark.parametrize("codes_bytes", [96, 1400])
def test_its_bytes_are_those_of_the_process(codes_bytes: int) -> None:
    """With all that Python takes for them, and however many have passed through."""
    max_bytes = 4 << 20
    count = 3 * max_bytes // (codes_bytes + ENTRY_BYTES)
    tracemalloc.start()
    try:
        cache = CodesCache(max_bytes)
        for i in range(count):
            cache.put(key(i), bytes(codes_bytes))
            if i % 3 == 0:
                cache.get(key(i // 2))
        now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.nbytes > 0.9 * max_bytes
    assert 0.6 * max_bytes < now
    assert most <= max_bytes
