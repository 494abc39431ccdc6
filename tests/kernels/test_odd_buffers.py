"""Whatever offers its memory to the kernels is taken for what it is, or refused; never a crash."""

from __future__ import annotations

import array
import ctypes
import itertools
import mmap
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bitheads.engine import _kernels
from bitheads.engine.heads.cpu import aligned_bytes

ROWS, SEQ, DIM = 3, 4, 16
LENGTHS, OFFSETS = np.array([4, 0, 2]), np.array([0, 4, 4])
TOKENS = int(LENGTHS.sum())
LAYER = np.random.default_rng(0).normal(size=(ROWS, SEQ, DIM)).astype(np.float32)


def pack(
    layers: list[Any], lengths: Any = LENGTHS, offsets: Any = OFFSETS, codes: Any = ...
) -> Any:
    if codes is ...:
        codes = np.zeros((TOKENS, DIM // 8), np.uint8)
    _kernels.pool_and_pack(
        layers, False, lengths, offsets, codes, "sign", "pool_then_sign", None, None, None, None
    )
    return codes


EXPECTED = pack([LAYER])


def as_ctypes(values: np.ndarray) -> Any:
    """Its buffers have no strides, though they are asked for."""
    return np.ctypeslib.as_ctypes(np.ascontiguousarray(values))


def as_memoryview(values: np.ndarray) -> Any:
    flat = memoryview(values.tobytes())
    letter = {"f": "f", "l": "l", "B": "B"}[values.dtype.char]
    return flat.cast(letter, values.shape) if values.ndim > 1 else flat.cast(letter)


def as_mapped(values: np.ndarray) -> Any:
    mapped = mmap.mmap(-1, max(1, values.nbytes))
    mapped[: values.nbytes] = values.tobytes()
    return np.frombuffer(mapped, values.dtype, values.size).reshape(values.shape)


def as_fortran(values: np.ndarray) -> Any:
    return np.asfortranarray(values)


def as_reversed_rows(values: np.ndarray) -> Any:
    return np.ascontiguousarray(values[::-1])[::-1]


def as_repeated(values: np.ndarray) -> Any:
    """Strides of zero: another array."""
    return np.broadcast_to(values[:1], values.shape)


FORMS: list[Callable[[np.ndarray], Any]] = [
    as_ctypes,
    as_memoryview,
    as_mapped,
    as_reversed_rows,
]


@pytest.mark.parametrize("form", FORMS)
def test_layers_however_they_lie(form: Callable[[np.ndarray], Any]) -> None:
    assert np.array_equal(pack([form(LAYER)]), EXPECTED)
    assert np.array_equal(pack([LAYER, form(LAYER)]), EXPECTED)


def test_strides_of_zero() -> None:
    repeated = as_repeated(LAYER)
    assert np.array_equal(pack([repeated]), pack([np.ascontiguousarray(repeated)]))


@pytest.mark.parametrize("form", [as_ctypes, as_memoryview, as_mapped])
def test_indices_and_codes_however_they_lie(form: Callable[[np.ndarray], Any]) -> None:
    assert np.array_equal(pack([LAYER], form(LENGTHS), form(OFFSETS)), EXPECTED)
    if form is not as_memoryview:  # of bytes, which nobody may write to
        codes = form(np.zeros((TOKENS, DIM // 8), np.uint8))
        assert np.array_equal(np.asarray(pack([LAYER], codes=codes)), EXPECTED)


ODD = r": got .*, expected |incompatible function arguments"

REFUSED: dict[str, Any] = {
    "pointers": (ctypes.POINTER(ctypes.c_float) * ROWS)(),
    "a pointer": ctypes.pointer(ctypes.c_float(1)),
    "a number": ctypes.c_float(1),
    "structures": (type("S", (ctypes.Structure,), {"_fields_": [("x", ctypes.c_float)]}) * 3)(),
    "no dimensions": np.float32(1),
    "an array without dimensions": np.array(1, np.float32),
    "records": np.zeros((ROWS, SEQ, DIM), [("x", "f4")]),
    "objects": np.zeros((ROWS, SEQ, DIM), object),
    "strings": np.zeros((ROWS, SEQ, DIM), "U1"),
    "other bytes first": LAYER.astype(">f4"),
    "complex numbers": LAYER.astype(np.complex64),
    "columns first": as_fortran(LAYER),
    "dates": np.zeros((ROWS, SEQ, DIM), "M8[s]"),
    "bytes": b"123",
    "a list": [1.0],
    "nothing": None,
    "a flat array": array.array("f", [1.0] * ROWS * SEQ * DIM),
    "a class": np.ndarray,
}


@pytest.mark.parametrize("odd", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_array_of_numbers(odd: Any) -> None:
    """In every place."""
    codes = np.zeros((TOKENS, DIM // 8), np.uint8)
    for arguments in (
        ([odd], LENGTHS, OFFSETS, codes),
        ([LAYER, odd], LENGTHS, OFFSETS, codes),
        ([LAYER], odd, OFFSETS, codes),
        ([LAYER], LENGTHS, odd, codes),
        ([LAYER], LENGTHS, OFFSETS, odd),
    ):
        with pytest.raises((TypeError, ValueError), match=ODD):
            pack(*arguments)
    assert not codes.any()


def test_a_view_that_was_given_back() -> None:
    gone = memoryview(LAYER)
    gone.release()
    with pytest.raises((TypeError, ValueError)):
        pack([gone])


def test_memory_stays_while_it_is_lent() -> None:
    lent = bytearray(LENGTHS.tobytes())
    view = memoryview(lent).cast("l")
    assert np.array_equal(pack([LAYER], view), EXPECTED)
    view.release()
    lent += b"1"  # nothing was kept
    assert len(lent) == LENGTHS.nbytes + 1


OVERLAPS = {
    "codes, layers[0]": lambda room: {
        "layers": [room[: LAYER.nbytes].view(np.float32).reshape(LAYER.shape)],
        "codes": room[8 : 8 + 2 * TOKENS].reshape(TOKENS, 2),
    },
    "codes, lengths of another": lambda room: {
        "layers": [room[16 : 16 + LAYER.nbytes].view(np.float32).reshape(LAYER.shape)[::-1]],
        "codes": room[: 2 * TOKENS + 8].reshape(-1, 2),
    },
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_codes_over_what_is_read(case: str) -> None:
    room = np.zeros(4096, np.uint8)
    arguments = OVERLAPS[case](room)
    with pytest.raises(ValueError, match=r"codes: got memory of layers\[0\], expected an array of"):
        pack(**arguments)


def test_lengths_in_the_codes_are_read_before() -> None:
    """They are copied, so they may lie there."""
    room = np.zeros(TOKENS * DIM // 8 + 24, np.uint8)
    lengths = room[: LENGTHS.nbytes].view(np.int64)
    lengths[:] = LENGTHS
    codes = room[: TOKENS * DIM // 8].reshape(TOKENS, -1)
    assert np.array_equal(pack([LAYER], lengths, OFFSETS, codes), EXPECTED)


def head_of(dim: int = 32, classes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    block = aligned_bytes(_kernels.head_bytes("sign", "mean", dim, 0, dim, classes))
    weights = draw(dim, dim), draw(dim), draw(classes, dim), draw(classes)
    _kernels.lay_out_head(block, "sign", "mean", None, None, *weights)
    return block


def predict(heads: list[Any], logits: list[Any], **changed: Any) -> None:
    codes = np.random.default_rng(2).integers(0, 256, (6, 4), np.uint8)
    inputs = [
        changed.get("codes", codes),
        changed.get("offsets", np.array([0, 2, 6])),
        32,
        "sign",
        heads,
    ]
    room = aligned_bytes(_kernels.predict_heads_workspace(*inputs))
    _kernels.predict_heads(*inputs, logits, changed.get("workspace", room))


def test_answers_over_each_other_or_over_what_is_read() -> None:
    block, room = head_of(), np.zeros(4096, np.float32)
    first, second = room[:6].reshape(2, 3), room[6:12].reshape(2, 3)
    predict([block, block], [first, second])  # side by side, and one head twice
    assert np.array_equal(first, second)
    with pytest.raises(ValueError, match=r"logits\[[01]\]: got memory of logits\[[01]\], expected"):
        predict([block, block], [first, room[3:9].reshape(2, 3)])
    inside = block[64:88].view(np.float32).reshape(2, 3)
    with pytest.raises(ValueError, match=r"logits\[0\]: got memory of heads\[0\], expected an arr"):
        predict([block], [inside])
    large = aligned_bytes(1 << 20)
    with pytest.raises(ValueError, match=r"(logits|workspace).*: got memory of (work|logits)"):
        predict([block], [large[64:88].view(np.float32).reshape(2, 3)], workspace=large)
    with pytest.raises(ValueError, match=r"logits\[0\]: got memory of codes"):
        predict([block], [room[:6].reshape(2, 3)], codes=room.view(np.uint8)[:24].reshape(6, 4))


@pytest.mark.parametrize("odd", REFUSED.values(), ids=REFUSED.keys())
def test_heads_from_what_is_no_array_of_numbers(odd: Any) -> None:
    block = head_of()
    answer = np.zeros((2, 3), np.float32)
    for heads, logits, changed in (
        ([odd], [answer], {}),
        ([block], [odd], {}),
        ([block], [answer], {"codes": odd}),
        ([block], [answer], {"offsets": odd}),
        ([block], [answer], {"workspace": odd}),
    ):
        with pytest.raises((TypeError, ValueError), match=ODD):
            predict(heads, logits, **changed)


def test_offsets_and_lengths_that_another_thread_changes() -> None:
    """What was compared is what is used; under the sanitizers, anything else is a report."""
    lengths, offsets = LENGTHS.copy(), OFFSETS.copy()
    bounds = np.array([0, 2, 6])
    block, answer = head_of(), np.zeros((2, 3), np.float32)
    done = threading.Event()

    def change() -> None:
        for far in itertools.cycle((1 << 40, -(1 << 40), 0)):
            if done.is_set():
                return
            lengths[:] = far
            offsets[:] = far
            bounds[:] = far
            lengths[:], offsets[:], bounds[:] = LENGTHS, OFFSETS, (0, 2, 6)

    changing = threading.Thread(target=change)
    changing.start()
    refused = 0
    try:
        for _ in range(3000):
            try:
                pack([LAYER], lengths, offsets)
                predict([block], [answer], offsets=bounds)
            except ValueError:
                refused += 1
    finally:
        done.set()
        changing.join()
    assert refused < 6000
