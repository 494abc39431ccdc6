"""`train-head` on signs at 8 examples per class and up, beside logistic regression on the float
sentence embedding and on the mean of the same signs.

Below `full` nothing but the drawn examples is used: there is no dev, and how strongly a linear
model is regularized, and how far a head is trained, is found on parts of them that are held back in
turn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import options as common
from benchmarks import record
from benchmarks.accuracy.variants import EMBEDDING, SIGNS, variants
from bitheads import Engine
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.types import Text
from bitheads.training.data.held_out import rows_of
from bitheads.training.data.labelled_texts import LabelledTexts, classes_of, read_labelled
from bitheads.training.data.tasks import file_of
from bitheads.training.heads.config import HeadSettings
from bitheads.training.heads.train_head import train_head_on
from bitheads.training.many_heads.codes import CodesOnDisk
from bitheads.training.many_heads.linear import Part, linear_answers, vectors

NAME = "few_shot"
FULL = "full"
POOLED_SIGNS = "pooled_signs"
CONTENDERS = (SIGNS, POOLED_SIGNS, EMBEDDING)


def run(options: argparse.Namespace) -> None:
    """Measures each task, size and draw, and stores the result after each task and size.

    Raises InputError for data that is not there.
    """
    common.require_at_least(1, options, "draws")
    for size in options.sizes:
        if size != FULL and not (size.isdigit() and int(size) > 1):
            raise InputError(f"--sizes: got {size}, expected numbers from 2 on, or {FULL}.")
    for task in options.tasks:
        for part in ("train", "dev", "test"):
            if not file_of(options.data / task, part).is_file():
                raise InputError(
                    f"--data {options.data}: no {task}/{part}.tsv in it. Expected a folder per "
                    "task with train, dev and test."
                )
    with tempfile.TemporaryDirectory() as scratch:
        made = variants(options.encoder, [SIGNS, EMBEDDING], Path(scratch), say)
        folder = options.codes or Path(scratch) / "codes"
        encode = {name: _encoder_of(variant.engine, folder) for name, variant in made.items()}
        stored = record.read(NAME)["result"] if options.update and record.exists(NAME) else {}
        result: dict[str, Any] = {"tasks": stored.get("tasks", {})}
        for task in options.tasks:
            sets = {
                part: read_labelled(file_of(options.data / task, part), "none")
                for part in ("train", "dev", "test")
            }
            of_task = result["tasks"].setdefault(task, {"form": sets["train"].form})
            of_task["test_texts"] = len(sets["test"])
            for size in options.sizes:
                draws = 1 if size == FULL else options.draws
                if len(of_task.get(size, {}).get(SIGNS, ())) >= draws:
                    continue
                of_task[size] = _measure(
                    made[SIGNS].engine, encode, sets, size, draws, options.background
                )
                say(f"{task}, {size}: {of_task[size]}")
                record.write(NAME, "python -m benchmarks few_shot --data DIR", result)


Encode = Callable[..., PackedFeatures]
"""Texts to codes, as Engine.encode; each text is encoded once."""


def _encoder_of(engine: Engine, folder: Path) -> Encode:
    max_length = engine.manifest.encoder.max_length
    codes = CodesOnDisk(folder, engine.spec, engine.calibration, max_length)

    def encode(texts: Sequence[Text], **_: Any) -> PackedFeatures:
        codes.add(engine, codes.missing(texts, words=False), words=False, progress=False)
        return codes.get(texts)

    return encode


def _measure(
    engine: Engine,
    encode: Mapping[str, Encode],
    sets: Mapping[str, LabelledTexts],
    size: str,
    draws: int,
    reject: bool,
) -> dict[str, list[Any]]:
    """Test accuracy in percent of each contender, and the form of the head, by draw."""
    found: dict[str, list[Any]] = {name: [] for name in (*CONTENDERS, "form")}
    classes = classes_of(sets["train"])
    for draw in range(draws):
        parts = {"train": sets["train"], "dev": sets["dev"], "test": sets["test"]}
        if size != FULL:
            del parts["dev"]
            parts["train"] = drawn(sets["train"], int(size), draw)
        settings = HeadSettings("task", reject=reject)
        head = train_head_on(engine, encode[SIGNS], parts, settings).head
        found[SIGNS].append(round(100 * head.metrics["test_accuracy"], 2))
        found["form"].append(head.form)
        for name, kind in ((POOLED_SIGNS, SIGNS), (EMBEDDING, EMBEDDING)):
            found[name].append(round(100 * _linear(parts, classes, encode[kind]), 2))
    return found


def drawn(data: LabelledTexts, per_class: int, seed: int) -> LabelledTexts:
    """So many examples of each label, or all that it has."""
    order = np.random.default_rng(seed).permutation(len(data))
    labels = np.array(data.labels)[order]
    rows = np.sort(
        np.concatenate([order[labels == label][:per_class] for label in np.unique(labels)])
    )
    return rows_of(data, rows)


def _linear(parts: Mapping[str, LabelledTexts], classes: tuple[str, ...], encode: Encode) -> float:
    """Test accuracy of a logistic regression."""
    found = {
        name: Part(vectors(data.texts, encode), data.label_ids(classes))
        for name, data in parts.items()
    }
    test = found["test"]
    answers, _ = linear_answers(
        "single_label", classes, found["train"], found.get("dev"), test.rows
    )
    return float((answers == test.truth).mean())
