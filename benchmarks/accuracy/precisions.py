"""Heads on codes of other precisions than they were trained on: what a faster encoder costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitheads import Engine
from bitheads.engine.bundle import read_manifest
from bitheads.engine.errors import InputError
from bitheads.export.comparison.parity import available_sessions
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.training.data.labelled_texts import LabelledTexts, read_labelled
from bitheads.training.data.tasks import file_of

COMMAND = "python -m benchmarks accuracy --data DIR --shipped"
BACKEND = "openvino"
Say = Callable[[str], None]


def build_precision() -> str:
    """int8 where NNCF is installed, which has the same graph and one in int8 beside it."""
    return "fp16" if find_spec("nncf") is None else "int8"


def engines(folder: Path) -> list[Engine]:
    """A bundle's engines, one per precision that this machine has."""
    quantized = read_manifest(folder).quantized
    return [
        Engine.load(folder, backend, precision=precision)
        for backend, precision in available_sessions(quantized)
        if backend == BACKEND
    ]


def shipped(
    encoder: str, data: Path, tasks: dict[str, str], scratch: Path, say: Say
) -> dict[str, Any]:
    """Test accuracy of every shipped head of `tasks`, at every precision.

    Args:
        tasks: task -> its folder in `data`.

    Raises InputError if the encoder has no such heads.
    """
    folder = scratch / "bundle"
    make_bundle(BuildConfig(encoder, precision=build_precision(), output=folder), say)
    loaded = engines(folder)
    if missing := sorted(set(tasks) - set(loaded[0].tasks)):
        raise InputError(
            f"--encoder {encoder}: no head for {missing[0]} is shipped with it. Leave --shipped "
            "out to train some, or name others with --tasks."
        )
    found = {}
    for task, name in tasks.items():
        found[task] = by_precision(loaded, task, read_labelled(file_of(data / name, "test")))
        say(f"{task}: {found[task]}")
    return found


def by_precision(loaded: Sequence[Engine], task: str, test: LabelledTexts) -> dict[str, Any]:
    """The accuracy of one loaded head with each engine, such as {"openvino bf16": 0.91}."""
    found: dict[str, Any] = {"texts": len(test)}
    for engine in loaded:
        top = engine.predict(test.texts, [task])[task].top
        right = sum(got == label for got, label in zip(top, test.labels, strict=True))
        found[engine.backend] = round(right / len(test), 5)
    return found
