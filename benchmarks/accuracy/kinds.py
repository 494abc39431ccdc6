"""Heads of other kinds than one label: on signs, uint8 and float16, beside a linear model."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.accuracy import linear
from benchmarks.accuracy.options import FEATURES_OF_KINDS
from benchmarks.accuracy.tasks import background_of, chosen
from benchmarks.accuracy.variants import EMBEDDING, LEARNING_RATES, SIGNS, Variant, variants
from benchmarks.figures.rounding import rounded
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError
from bitheads.engine.kinds import KINDS
from bitheads.training.data.labelled_texts import LabelledTexts, read_labelled
from bitheads.training.data.tasks import file_of
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.decision_options import DEFAULT_OPTIONS
from bitheads.training.heads.objectives import objective_of
from bitheads.training.heads.train_head import train_head

NAME = "accuracy_of_kinds"
LINEAR = "linear"
HELD_BACK = 10
"""Where there is no test file, one in so many training rows decides when to stop, and dev is the
test."""


@dataclass(frozen=True)
class KindTask:
    """A task, and where it lies.

    Attributes:
        option: the folder of its folder, "kinds" or "data".
        kind: None for what the columns say.
        shipped: whether its head is one of those that come with the encoder.
    """

    folder: str
    option: str = "kinds"
    kind: str | None = None
    shipped: bool = False

    @property
    def is_of_words(self) -> bool:
        """Whether its head answers words, and so has no reject output."""
        return self.kind is not None and KINDS[self.kind].is_of_words


KIND_TASKS = {
    "emotions": KindTask("go_emotions", shipped=True),
    "similarity": KindTask("sts_b"),
    "stars": KindTask("amazon5", option="data", kind="ordinal"),
    "personal_data": KindTask("pii", kind="token_label", shipped=True),
}
"""Head -> its task."""


def run(options: argparse.Namespace, scratch: Path) -> None:
    """Trains and measures a head of each task on each kind of features, and stores that.

    Raises InputError for data that is not there.
    """
    tasks = chosen("--tasks", options.tasks, KIND_TASKS)
    features = [*chosen("--features", options.features, dict.fromkeys(FEATURES_OF_KINDS))]
    files = {name: _files(options, task, scratch / name) for name, task in tasks.items()}
    made = variants(
        options.encoder, [EMBEDDING if f == LINEAR else f for f in features], scratch, say
    )
    measured: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        parts = {
            part: read_labelled(path, quotes_of(path), kind=task.kind)
            for part, path in files[name].items()
        }
        found = measured[name] = {
            "data": task.folder,
            "kind": parts["train"].kind,
            "texts": {part: len(data) for part, data in parts.items()},
        }
        for feature in features:
            say(f"== {name}, {feature}")
            if feature == LINEAR and parts["train"].kind not in linear.MODELS:
                continue
            if feature == LINEAR:
                metrics = _linear(made[EMBEDDING], parts)
            else:
                output = scratch / feature / f"{name}.safetensors"
                metrics = _trained(name, task, files[name], made[feature], output, options.data)
            found[feature] = {metric: rounded(value, 5) for metric, value in metrics.items()}
            say(f"{found[feature]}")
            if feature == SIGNS and task.shipped and options.write_heads:
                options.write_heads.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(output, options.write_heads / output.name)
                found["head_bytes"] = output.stat().st_size
    # Read last: of tasks and features that others measured meanwhile, too.
    stored = record.read(NAME)["result"] if options.update else {}
    result = {
        name: {**stored.get(name, {}), **measured.get(name, {})}
        for name in KIND_TASKS
        if name in stored or name in measured
    }
    record.write(NAME, "python -m benchmarks accuracy --data DIR --kinds DIR", result)


def quotes_of(path: Path) -> str | None:
    """In these TSVs quotes are the texts' own; of other formats there is nothing to say."""
    return "none" if path.suffix == ".tsv" else None


def _files(options: argparse.Namespace, task: KindTask, scratch: Path) -> dict[str, Path]:
    """train, dev and test; rows of the training file are held back where there is no test file."""
    folder = getattr(options, task.option) / task.folder
    train, dev, test = (file_of(folder, part) for part in ("train", "dev", "test"))
    for path in (train, dev):
        if not path.is_file():
            raise InputError(
                f"--{task.option} {folder.parent}: no {task.folder}/{path.name} in it. Expected a "
                f"folder {task.folder} with train and dev, as .tsv or .jsonl."
            )
    if test.is_file():
        return {"train": train, "dev": dev, "test": test}
    scratch.mkdir()
    header, *rows = train.read_text(encoding="utf-8").splitlines()
    held_back = rows[HELD_BACK - 1 :: HELD_BACK]
    del rows[HELD_BACK - 1 :: HELD_BACK]
    parts = {"train": rows, "dev": held_back}
    for part, lines in parts.items():
        text = "\n".join([header, *lines]) + "\n"
        (scratch / f"{part}.tsv").write_text(text, encoding="utf-8")
    return {**{part: scratch / f"{part}.tsv" for part in parts}, "test": dev}


def _trained(
    name: str, task: KindTask, files: dict[str, Path], variant: Variant, output: Path, data: Path
) -> dict[str, float]:
    """What a head's file says of it; a head that is shipped knows the other tasks' texts, too."""
    output.parent.mkdir(exist_ok=True)
    config = HeadConfig(
        name,
        files["train"],
        files["dev"],
        output,
        files["test"],
        learning_rates=() if task.is_of_words else LEARNING_RATES,
        dtype="float16",
        quotes=quotes_of(files["train"]),
        kind=task.kind,
        background=background_of(data, name) if task.shipped and not task.is_of_words else (),
    )
    # Of words, as their kind wants it: what pools a text's tokens need not be best for a word's.
    fit: FitConfig | dict[str, Any] = {} if task.is_of_words else variant.fit
    return dict(train_head(variant.engine, config, fit, say).head.metrics)


def _linear(variant: Variant, parts: dict[str, LabelledTexts]) -> dict[str, float]:
    objective = objective_of(parts["train"], DEFAULT_OPTIONS)
    model = linear.MODELS[objective.kind]
    metrics = model(variant.engine, parts, objective)
    return {f"test_{metric}": value for metric, value in metrics.items()}
