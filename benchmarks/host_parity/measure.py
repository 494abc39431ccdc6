"""The C++ host beside Python's engine: all shipped heads on real texts. No times."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.contenders.host_library import HostEngine, HostFeatures, HostLibrary
from bitheads import Engine, PackedFeatures, Predictions
from bitheads.engine.errors import InputError
from bitheads.engine.kinds import KINDS
from bitheads.engine.process.cores import count_cores
from bitheads.engine.texts.tables import read_table
from bitheads.engine.types import Text

PRECISIONS = ("fp32", "bf16")
ALONE = 200
"""Texts of each form that are also asked alone."""


def run(options: argparse.Namespace) -> None:
    """Compares codes, labels and probabilities, single texts and pairs each to their heads."""
    if not options.library.exists():
        raise InputError(f"--library {options.library}: no such file. Type: make host")
    library = HostLibrary(options.library)
    texts = {
        form: _drawn(options.data, columns, options.texts)
        for form, columns in (("single", ("text",)), ("pair", ("text_a", "text_b")))
    }
    result = {
        "texts": {form: len(drawn) for form, drawn in texts.items()},
        "precisions": {
            precision: _compare(options.bundle, library, precision, texts)
            for precision in PRECISIONS
        },
    }
    record.write("host_parity", "python -m benchmarks host_parity --data DIR", result)


def _drawn(data: Path, columns: tuple[str, ...], count: int) -> list[Text]:
    """Texts, or pairs, drawn evenly from the test files that have such; at least `count`."""
    draw = random.Random(2)
    pools = []
    for file in sorted(data.glob("*/test.[ct]sv")):
        table = read_table(file)
        if set(columns) <= set(table.header):
            places = [table.header.index(name) for name in columns]
            pools.append([tuple(row.cells[i] for i in places) for row in table.rows])
    if not pools:
        raise InputError(
            f"--data {data}: no */test.tsv or */test.csv with the columns {list(columns)} in it."
        )
    # Small files give all they have, the others the rest.
    drawn: list[tuple[str, ...]] = []
    for left, pool in zip(range(len(pools), 0, -1), sorted(pools, key=len), strict=True):
        drawn += draw.sample(pool, min(len(pool), -(-(count - len(drawn)) // left)))
    if len(drawn) < count:
        raise InputError(f"--data {data}: {len(drawn)} texts in it, expected {count}.")
    return [(row[0], row[1]) if len(row) == 2 else row[0] for row in drawn]


def _compare(
    bundle: Path, library: HostLibrary, precision: str, texts: dict[str, list[Text]]
) -> dict[str, Any]:
    threads = count_cores()
    engine = Engine.load(bundle, "openvino", threads, precision)
    result: dict[str, Any] = {"backend": engine.backend}
    with HostEngine(library, bundle, precision, threads) as host:
        if host.backend != engine.backend or host.spec_id != engine.spec.id:
            raise InputError(f"got a host on {host.backend}, expected {engine.backend}.")
        for form, drawn in texts.items():
            # Not those of words: `host_words` compares these.
            tasks = [
                task
                for task, info in engine.tasks.items()
                if (info.form == "single") == (form == "single")
                and not KINDS[info.kind].is_of_words
            ]
            expected, got = engine.encode(drawn), host.encode(drawn)
            answers = host.predict(drawn, tasks)
            alone = [host.predict([text], tasks) for text in drawn[:ALONE]]
            result[form] = {
                **_codes(expected, got),
                "tasks": _answers(engine.predict(drawn, tasks), answers),
                "alone": {
                    "texts": len(alone),
                    "labels_equal": _share(
                        np.array_equal(one[task].has_label[0], answers[task].has_label[i])
                        for i, one in enumerate(alone)
                        for task in tasks
                    ),
                    "max_probability_difference": max(
                        _largest(one[task].probabilities[0], answers[task].probabilities[i])
                        for i, one in enumerate(alone)
                        for task in tasks
                    ),
                },
            }
    return result


def _codes(expected: PackedFeatures, got: HostFeatures) -> dict[str, Any]:
    """Texts with other tokens aside, which have no codes to compare."""
    counts = expected.num_tokens, np.diff(got.offsets)
    same_length = np.flatnonzero(counts[0] == counts[1])
    bits = different = 0
    for i in same_length:
        ours = got.codes[got.offsets[i] : got.offsets[i + 1]]
        theirs = expected.codes[expected.offsets[i] : expected.offsets[i + 1]]
        bits += 8 * ours.size
        different += int(np.unpackbits(ours ^ theirs).sum())
    return {
        "texts_with_other_tokens": len(expected) - same_length.size,
        "truncated": [expected.stats.num_truncated, got.num_truncated],
        "bits": bits,
        "bits_different": different,
    }


def _answers(expected: Predictions, got: dict[str, Any]) -> dict[str, Any]:
    return {
        task: {
            "labels_equal": _share((answer.has_label == got[task].has_label).all(axis=1)),
            "max_probability_difference": _largest(answer.probabilities, got[task].probabilities),
        }
        for task, answer in expected.items()
    }


def _share(are_equal: Iterable[bool]) -> float:
    equal = list(are_equal)
    return sum(equal) / len(equal)


def _largest(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
