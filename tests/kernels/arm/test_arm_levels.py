"""The levels of 64-bit ARM under QEMU, against the NumPy references computed here, to the bit.

No ARM processor takes part: this says what the levels compute, nothing about how fast.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from arm_calls import Call, halves_call, heads_call, pack_call
from arm_program import build_program
from head_cases import HeadSizes, make_codes, make_head, mixed_sizes, offsets_of
from kernel_cases import (
    DTYPES,
    MODES,
    make_layers,
    make_options,
    make_strided_layers,
    shuffled_offsets,
    with_odd_strides,
)

# Each level on the least processor that has it: an instruction of a later one would be illegal.
CPU_OF_LEVEL = {"serial": "cortex-a57", "neon": "cortex-a57", "neon_dotprod": "cortex-a76"}
PACKAGES = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}
MISSING = [package for tool, package in PACKAGES.items() if shutil.which(tool) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"apt-get install {' '.join(MISSING)}")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_program(tmp_path_factory.mktemp("arm"))


def emulate(
    program: Path, cpu: str, level: str | None, calls: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    environment = {k: v for k, v in os.environ.items() if k != "BITHEADS_KERNEL_LEVEL"}
    if level is not None:
        environment["BITHEADS_KERNEL_LEVEL"] = level
    command = ["qemu-aarch64", "-cpu", cpu, str(program)]
    return subprocess.run(
        command, env=environment, input=calls, capture_output=True, timeout=300, check=False
    )


def check(program: Path, level: str, calls: Sequence[Call]) -> None:
    """All calls in one run of the emulator, at a level that says it is the one that ran."""
    done = emulate(program, CPU_OF_LEVEL[level], level, b"".join(call.request for call in calls))
    assert done.returncode == 0, done.stderr.decode()
    ran, _, answers = done.stdout.partition(b"\n")
    assert ran.decode() == level
    assert len(answers) == sum(call.answer_bytes for call in calls)
    for call in calls:
        call.check(answers[: call.answer_bytes], level)
        answers = answers[call.answer_bytes :]


@pytest.fixture(params=CPU_OF_LEVEL)
def arm_level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def pack_calls() -> list[Call]:
    return list(_pack_calls())


def _pack_calls() -> Iterator[Call]:
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        for mode in MODES:
            # Every dim around a vector and a block of vectors, then those of encoders.
            for dim in (1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 80, 127, 384):
                num_layers = int(rng.integers(1, 5))
                layers = make_layers(rng, num_layers, (2, 3, dim), dtype)
                lengths = rng.integers(0, 4, 2)
                offsets = shuffled_offsets(rng, lengths)
                options = make_options(rng, mode, num_layers, dim)
                oddly = bool(rng.integers(0, 2))
                yield pack_call(layers, lengths, offsets, options, oddly=oddly)
            layers = make_strided_layers(rng, 3, (3, 4, 70), dtype, reverse=True)
            lengths = rng.integers(0, 5, 3)
            offsets = shuffled_offsets(rng, lengths, gap=1)
            yield pack_call(layers, lengths, offsets, make_options(rng, mode, 3, 70), gap=1)
            layers = [with_odd_strides(layer) for layer in make_layers(rng, 16, (2, 2, 93), dtype)]
            yield pack_call(
                layers, np.array([2, 2]), np.array([0, 2]), make_options(rng, mode, 16, 93)
            )
    none = make_layers(rng, 2, (0, 0, 64), "float32")
    yield pack_call(
        none, np.zeros(0, np.int64), np.zeros(0, np.int64), make_options(rng, "sign", 2, 64)
    )
    # Every float16 there is, and every one that rounding to float16 can meet halfway.
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, 64, 1024)
    for mode in ("sign", "float16", "uint8"):
        yield pack_call([halves], np.array([64]), np.array([0]), make_options(rng, mode, 1, 1024))
    with np.errstate(all="ignore"):
        numbers = halves.astype(np.float32)
        between = numbers + (np.spacing(halves).astype(np.float32) / 2)
    for floats in (between, np.nextafter(between, np.float32(0))):
        options = make_options(rng, "float16", 1, 1024)
        yield pack_call([floats], np.array([64]), np.array([0]), options)


def test_pool_and_pack(program: Path, arm_level: str) -> None:
    check(program, arm_level, pack_calls())


@cache
def head_calls() -> list[Call]:
    return list(_head_calls())


def _head_calls() -> Iterator[Call]:
    attention_heads_of_dim = {1: 1, 3: 3, 8: 2, 31: 1, 33: 3, 64: 16, 96: 12, 130: 5, 255: 17}
    for quantization in ("sign", "uint8"):
        for dim, attention_heads in attention_heads_of_dim.items():
            yield _random(quantization, dim, mixed_sizes(6, attention_heads), (1, 2, 3, 16, 31))
        # Columns of several panels, more than a group of them, a chunk of features and some.
        yield _random(quantization, 130, (HeadSizes(attention_heads=130),), (7, 1))
        yield _random(quantization, 260, mixed_sizes(3, 20), (15, 30, 1))
        yield _random(quantization, 520, mixed_sizes(2, 4), (5, 64, 65))
        many = tuple(HeadSizes(attention_heads=7, inner=5 + i) for i in range(22))
        yield _random(quantization, 70, many, (9, 4), oddly=True)
        # Every number of rows of a tile, more texts than a block, a long one.
        for texts in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 70):
            lengths = tuple(1 + 5 * i % 37 for i in range(texts))
            yield _random(quantization, 64, mixed_sizes(4, 4), lengths)
        yield _random(quantization, 32, mixed_sizes(4, 4), (3, 1500, 130, 1))
        yield from _largest(quantization)


def _random(
    quantization: str,
    dim: int,
    sizes: tuple[HeadSizes, ...],
    lengths: tuple[int, ...],
    oddly: bool = False,
) -> Call:
    heads = [
        make_head(
            seed, quantization, dim, one.pooling, attention_heads=one.attention_heads,
            inner=one.inner, classes=one.classes, sharpness=(3.0, 0.01, 30.0)[seed % 3],
        )
        for seed, one in enumerate(sizes)
    ]  # fmt: skip
    codes = make_codes(dim, quantization, dim, sum(lengths))
    return heads_call(codes, offsets_of(lengths), heads, oddly=oddly)


def _largest(quantization: str) -> Iterator[Call]:
    """Codes of all ones and all zeros, and weights that come to the largest integers there are."""
    dim = 288
    heads = [
        make_head(seed, quantization, dim, pooling, attention_heads=4, inner=40)
        for seed, pooling in enumerate(("attention", "attention", "mean", "last"))
    ]
    for head in heads:
        for weights in (head.query, head.value, head.dense, head.output):
            if weights is not None:
                weights[0] = np.abs(weights[0])
                weights[-1] = -np.abs(weights[-1])
                weights[0, 0] = weights[-1, -1] = 100
        if head.query is not None:
            head.query[1] = 1  # all of them as large as they get
            head.query[2] = -1
    for fill in (0x00, 0xFF):
        codes = make_codes(1, quantization, dim, 40)
        codes[::2] = fill
        codes[0] = 0xFF - fill
        yield heads_call(codes, offsets_of((20, 1, 19)), heads)
        same = np.full_like(codes, fill)
        yield heads_call(same, offsets_of((1, 39)), heads)


def test_predict_heads(program: Path, arm_level: str) -> None:
    check(program, arm_level, head_calls())


def test_floats_of_halves(program: Path, arm_level: str) -> None:
    every = np.arange(2**16, dtype=np.uint16)
    check(program, arm_level, [halves_call(every), halves_call(every[:13]), halves_call(every[:0])])


@pytest.mark.parametrize(("cpu", "level"), [("cortex-a57", "neon"), ("max", "neon_dotprod")])
def test_fastest_level_by_default(program: Path, cpu: str, level: str) -> None:
    assert emulate(program, cpu, None).stdout == f"{level}\n".encode()


def test_levels_that_cannot_run_are_refused(program: Path) -> None:
    for level in ("avx2", "neon_dotprod"):
        done = emulate(program, "cortex-a57", level)
        assert done.returncode == 1
        assert b"cannot run the kernel level asked for" in done.stderr
    assert b"avx512_vnni, neon, neon_dotprod, or" in emulate(program, "max", "sse9").stderr
