"""Tags of words: the kernel's are those of the NumPy reference, and so are the probabilities but
for their last bit."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from head_cases import aligned, read_only, unaligned
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernel_cases import GuardedMemory, needs_mxcsr, odd_floating_point
from numpy.typing import NDArray
from test_odd_buffers import ODD, REFUSED

from bitheads.engine import _kernels
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.kinds import tag_sequences, tag_sequences_reference

Logits = NDArray[np.float32]
Int64 = NDArray[np.int64]
LARGEST = float(np.finfo(np.float32).max)
LABELS = (1, 2, 17, 200)


def between_guards(call: Any, logits: Logits, offsets: Int64, dtype: Any, shape: Any) -> Any:
    """What the kernel writes; checks that it wrote all of it and nothing beside it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 128, 0xA5, np.uint8)
    before = logits.copy(), offsets.copy()
    call(logits, offsets, memory[64 : 64 + size].view(dtype).reshape(shape))
    assert (memory[:64] == 0xA5).all()
    assert (memory[-64:] == 0xA5).all()
    assert (logits.tobytes(), offsets.tobytes()) == (before[0].tobytes(), before[1].tobytes())
    return memory[64 : 64 + size].view(dtype).reshape(shape).copy()


def best_tags(logits: Logits, offsets: Int64) -> Int64:
    result: Int64 = between_guards(_kernels.best_tags, logits, offsets, np.int64, len(logits))
    return result


def label_probabilities(logits: Logits, offsets: Int64) -> Logits:
    shape = len(logits), logits.shape[1] // 2
    call = _kernels.label_probabilities
    result: Logits = between_guards(call, logits, offsets, np.float32, shape)
    return result


def assert_may_follow(tags: Int64, offsets: Int64) -> None:
    for start, end in pairwise(offsets.tolist()):
        for before, tag in pairwise([0, *tags[start:end].tolist()]):
            assert tag % 2 == 1 or tag == 0 or before in (tag, tag - 1)


def check(logits: Logits, offsets: Int64) -> None:
    tags = best_tags(logits, offsets)
    np.testing.assert_array_equal(tags, tag_sequences_reference.best_tags(logits, offsets))
    assert_may_follow(tags, offsets)
    got = label_probabilities(logits, offsets)
    expected = tag_sequences_reference.label_probabilities(logits, offsets)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    # Of numbers that are not negative the bits are in the numbers' order.
    bits = [np.nan_to_num(found).view(np.int32).astype(np.int64) for found in (got, expected)]
    assert np.abs(bits[0] - bits[1]).max(initial=0) <= 1
    assert np.nan_to_num(got).max(initial=0) <= 1
    for start, end in pairwise(offsets.tolist()):
        has_none = np.isnan(logits[start:end]).any() or np.isposinf(logits[start:end]).any()
        assert (np.isnan(got[start:end]) == has_none).all()


def random_logits(seed: int, words: int, labels: int, spread: float) -> Logits:
    random = np.random.default_rng(seed)
    return random.normal(0, spread, (words, 1 + 2 * labels)).astype(np.float32)


def test_by_hand() -> None:
    """Two words of one label have five sequences: OO, OB, BO, BB, BI."""
    offsets = np.array([0, 2])
    equal = np.zeros((2, 3), np.float32)
    assert best_tags(equal, offsets).tolist() == [0, 0]
    assert label_probabilities(equal, offsets).tolist() == [[np.float32(0.6)], [np.float32(0.6)]]
    # I is the second word's, so the first is B's, though O has more of it.
    goes_on = np.array([[1, 0, 5], [0, 0, 3]], np.float32)
    assert best_tags(goes_on, offsets).tolist() == [1, 2]
    # As likely as OO, which comes first.
    goes_on[1, 2] = 1
    assert best_tags(goes_on, offsets).tolist() == [0, 0]
    found = label_probabilities(goes_on, offsets)
    whole = np.exp([1, 1, 0, 0, 1]).sum()
    expected = [[(2 + np.e) / whole], [(1 + 2 * np.e) / whole]]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("spread", [0, 1e-3, 3, 100, 1e30])
def test_random_texts(labels: int, spread: float) -> None:
    random = np.random.default_rng(labels)
    for longest in (1, 2, 5, 60):
        offsets = offsets_of(random.integers(0, longest + 1, 12))
        logits = random_logits(longest, int(offsets[-1]), labels, spread)
        check(logits, offsets)
        logits[:, 2::2] += np.float32(spread)  # many that go on with no span
        check(logits, offsets)


@pytest.mark.parametrize("labels", LABELS)
def test_ties(labels: int) -> None:
    random = np.random.default_rng(labels)
    offsets = offsets_of(random.integers(0, 9, 40))
    shape = int(offsets[-1]), 1 + 2 * labels
    for levels in (1, 2, 3):
        check(random.integers(0, levels, shape).astype(np.float32), offsets)
    check(random.integers(-1, 2, shape).astype(np.float32) * LARGEST, offsets)
    check(np.full(shape, -np.inf, np.float32), offsets)
    check(np.full(shape, -LARGEST, np.float32), offsets)


SOME = st.sampled_from([0.0, -0.0, 1.0, 3e38, -3e38, 3.3e38, -3.3e38, 1e-45, -300.0, 300.0])
ANY = st.one_of(st.integers(-3, 3).map(float), SOME, st.floats(width=32))


@settings(max_examples=300)
@given(st.data(), st.integers(1, 4), st.lists(st.integers(0, 6), max_size=5))
def test_any_numbers(data: st.DataObject, labels: int, counts: list[int]) -> None:
    """Also those that are none, or infinite."""
    elements = data.draw(st.sampled_from([ANY, st.floats(-10, 10, width=32), SOME]))
    shape = sum(counts), 1 + 2 * labels
    check(data.draw(arrays(np.float32, shape, elements=elements)), offsets_of(counts))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labels", [1, 3])
def test_one_odd_number_in_every_place(odd: float, labels: int) -> None:
    """What it does to its own text, and to no other."""
    offsets = np.array([0, 3, 3, 7, 9])
    logits = random_logits(0, 9, labels, 2)
    for word, tag in itertools.product(range(3, 7), range(1 + 2 * labels)):
        changed = logits.copy()
        changed[word, tag] = odd
        check(changed, offsets)
        others = [0, 1, 2, 7, 8]
        for call in (best_tags, label_probabilities):
            assert np.array_equal(call(changed, offsets)[others], call(logits, offsets)[others])


@pytest.mark.parametrize("labels", [1, 9])
def test_a_long_text(labels: int) -> None:
    logits = random_logits(1, 50_000, labels, 3)
    check(logits, np.array([0, 50_000]))


def test_a_text_has_the_same_bits_alone() -> None:
    offsets = offsets_of(np.random.default_rng(2).integers(0, 30, 40))
    logits = random_logits(2, int(offsets[-1]), 9, 3)
    tags, found = best_tags(logits, offsets), label_probabilities(logits, offsets)
    for start, end in pairwise(offsets.tolist()):
        own = logits[start:end], np.array([0, end - start])
        assert np.array_equal(best_tags(*own), tags[start:end])
        assert label_probabilities(*own).tobytes() == found[start:end].tobytes()


def test_the_most_labels() -> None:
    check(random_logits(3, 3, 32_767, 3), np.array([0, 2, 3]))


def test_golden_bits() -> None:
    """The same on every machine: products and sums alone, no library's exponential."""
    logits = (np.arange(60).reshape(12, 5) * 7 % 13 / 2 - 3).astype(np.float32)
    found = label_probabilities(logits, np.array([0, 5, 12]))
    assert found.view(np.uint32).sum(dtype=np.uint64) == 25_145_987_044


@needs_mxcsr
def test_floating_point_mode_of_the_thread_does_not_matter() -> None:
    offsets = np.array([0, 40])
    logits = random_logits(7, 40, 3, 90)  # of which some probabilities are subnormal
    tags, found = best_tags(logits, offsets), label_probabilities(logits, offsets)
    assert ((found > 0) & (found < np.finfo(np.float32).tiny)).any()
    got_tags, got = np.zeros_like(tags), np.zeros_like(found)
    with odd_floating_point():
        _kernels.best_tags(logits, offsets, got_tags)
        _kernels.label_probabilities(logits, offsets, got)
    assert got_tags.tobytes() == tags.tobytes()
    assert got.tobytes() == found.tobytes()


def test_no_words_and_no_texts() -> None:
    none = np.empty((0, 5), np.float32)
    for offsets in ([0], [0, 0], [0, 0, 0]):
        check(none, np.array(offsets))


def test_no_byte_beyond_the_arrays_is_read_or_written() -> None:
    offsets = np.array([0, 0, 4, 9, 9])
    logits = random_logits(4, 9, 3, 30)
    last = GuardedMemory(logits.nbytes).at_end(logits)
    tags = GuardedMemory(9 * 8).at_end(np.zeros(9, np.int64))
    found = GuardedMemory(9 * 3 * 4).at_end(np.zeros((9, 3), np.float32))
    _kernels.best_tags(last, offsets, tags)
    _kernels.label_probabilities(last, offsets, found)
    np.testing.assert_array_equal(tags, best_tags(logits, offsets))
    np.testing.assert_array_equal(found, label_probabilities(logits, offsets))


def test_what_the_engine_calls() -> None:
    """Logits in any order: beside a reject output they are columns of a wider array."""
    offsets = np.array([0, 4, 9])
    wide = random_logits(5, 9, 4, 3)
    for logits in (wide[:, :7], np.asfortranarray(wide), wide[::-1]):
        plain = np.ascontiguousarray(logits)
        np.testing.assert_array_equal(
            tag_sequences.best_tags(logits, offsets), best_tags(plain, offsets)
        )
        np.testing.assert_array_equal(
            tag_sequences.label_probabilities(logits, offsets), label_probabilities(plain, offsets)
        )


WORDS, TEXTS = 3, np.array([0, 1, 3])
GOOD: dict[str, Any] = {"logits": np.ones((WORDS, 5), np.float32), "offsets": TEXTS}
OUT: dict[str, Any] = {
    "tags": np.full(WORDS, 7),
    "probabilities": np.full((WORDS, 2), 7, np.float32),
}
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "even": (
        {"logits": np.ones((3, 4), np.float32)},
        ValueError,
        r"logits: got shape \[3, 4\], expected 1 \+ 2 \* labels a word, of 1 to 32767 labels",
    ),
    "no labels": ({"logits": np.ones((3, 1), np.float32)}, ValueError, r"got shape \[3, 1\]"),
    "nothing": ({"logits": np.ones((3, 0), np.float32)}, ValueError, r"got shape \[3, 0\]"),
    "too many": (
        {"logits": np.ones((3, 65_537), np.float32)},
        ValueError,
        r"logits: got shape \[3, 65537\], expected 1 \+ 2",
    ),
    "flat": ({"logits": np.ones(5, np.float32)}, ValueError, r"logits: got shape \[5\], expected"),
    "float64": ({"logits": np.ones((3, 5))}, TypeError, "logits: got format 'd', expected a fl"),
    "strided": ({"logits": np.ones((3, 6), np.float32)[:, 1:]}, ValueError, "got a strided array"),
    "unaligned": ({"logits": unaligned(GOOD["logits"])}, ValueError, "logits: got an unaligned"),
    "no offsets": (
        {"offsets": np.empty(0, np.int64)},
        ValueError,
        "offsets: got none, expected one more than there are texts",
    ),
    "from 1": (
        {"offsets": np.array([1, 3])},
        ValueError,
        "offsets: got 1 to 3, expected 0 to 3, the words of logits",
    ),
    "too few": ({"offsets": np.array([0, 2])}, ValueError, "offsets: got 0 to 2, expected 0 to 3"),
    "past": ({"offsets": np.array([0, 4])}, ValueError, "offsets: got 0 to 4, expected 0 to 3"),
    "back": (
        {"offsets": np.array([0, 2, 1, 3])},
        ValueError,
        r"offsets\[2\]: got 1, expected at least the one before, 2",
    ),
    "negative": (
        {"offsets": np.array([0, -(2**63), 3])},
        ValueError,
        r"offsets\[1\]: got -9223372036854775808, expected at least",
    ),
    "far": (
        {"offsets": np.array([0, 2**63 - 1, 3])},
        ValueError,
        r"offsets\[2\]: got 3, expected at least the one before, 9223372036854775807",
    ),
    "int32": ({"offsets": TEXTS.astype(np.int32)}, TypeError, "offsets: got format 'i', expected"),
    "strided offsets": ({"offsets": np.zeros(6, np.int64)[::2]}, ValueError, "a strided array"),
    "a table": ({"offsets": np.zeros((3, 1), np.int64)}, ValueError, r"got shape \[3, 1\]"),
}
BAD_OUT: dict[str, tuple[str, Any, type[Exception], str]] = {
    "short": ("tags", np.full(2, 7), ValueError, r"tags: got shape \[2\], expected \[words\] = "),
    "int32": ("tags", np.full(3, 7, np.int32), TypeError, "tags: got format 'i', expected a int64"),
    "read-only": ("tags", read_only(np.full(3, 7)), ValueError, "tags: got a read-only array"),
    "strided": ("tags", np.full(6, 7)[::2], ValueError, "tags: got a strided array"),
    "more labels": (
        "probabilities",
        np.full((3, 3), 7, np.float32),
        ValueError,
        r"probabilities: got shape \[3, 3\], expected \[words, labels\] = \[3, 2\]",
    ),
    "float64": ("probabilities", np.full((3, 2), 7.0), TypeError, "probabilities: got format 'd'"),
    "read-only numbers": (
        "probabilities",
        read_only(np.full((3, 2), 7, np.float32)),
        ValueError,
        "probabilities: got a read-only array",
    ),
}


def refuse(out: str, arguments: dict[str, Any], error: Any, message: str) -> None:
    before = arguments[out].copy()
    call = _kernels.best_tags if out == "tags" else _kernels.label_probabilities
    with pytest.raises(error, match=message):
        call(**arguments)
    assert np.array_equal(arguments[out], before)


@pytest.mark.parametrize("out", OUT)
@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments_are_refused(out: str, name: str) -> None:
    change, error, message = BAD[name]
    refuse(out, {**GOOD, out: OUT[out], **change}, error, message)


@pytest.mark.parametrize("name", BAD_OUT)
def test_no_place_for_what_is_found_is_refused(name: str) -> None:
    out, array, error, message = BAD_OUT[name]
    refuse(out, {**GOOD, out: array}, error, message)


@pytest.mark.parametrize("out", OUT)
def test_what_is_written_over_the_logits_is_refused(out: str) -> None:
    memory = aligned(64)
    memory[:] = 0
    logits = memory[:60].view(np.float32).reshape(3, 5)
    array = OUT[out]
    over = memory[8 : 8 + array.nbytes].view(array.dtype).reshape(array.shape)
    refuse(out, {**GOOD, "logits": logits, out: over}, ValueError, f"{out}: got memory of logits")


@pytest.mark.parametrize("odd", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_array_of_numbers(odd: Any) -> None:
    """In every place."""
    for out, name in itertools.product(OUT, ("logits", "offsets", "")):
        call = _kernels.best_tags if out == "tags" else _kernels.label_probabilities
        with pytest.raises((TypeError, ValueError), match=ODD):
            call(**{**GOOD, out: OUT[out], name or out: odd})


def test_arrays_that_another_thread_changes() -> None:
    """Offsets that were compared are those used, and what is written is not read again; under the
    sanitizers, anything else is a report."""
    logits, offsets = random_logits(6, 200, 3, 30), np.array([0, 90, 200])
    tags, found = np.zeros(200, np.int64), np.zeros((200, 3), np.float32)
    good = logits.copy(), offsets.copy()
    done = threading.Event()

    def change() -> None:
        for far in itertools.cycle((1 << 40, -(1 << 40), 0)):
            if done.is_set():
                return
            offsets[:] = tags[:] = far
            logits[:] = np.nan
            logits[:], offsets[:] = good
            time.sleep(0)  # the other's turn

    changing = threading.Thread(target=change)
    changing.start()
    answered = 0
    try:
        for _ in range(3000):
            with contextlib.suppress(ValueError):
                _kernels.best_tags(logits, offsets, tags)
                _kernels.label_probabilities(logits, offsets, found)
                answered += 1
    finally:
        done.set()
        changing.join()
    assert answered
