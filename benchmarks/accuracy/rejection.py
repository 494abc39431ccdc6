"""What the shipped heads refuse: texts of sources that no training or background file holds, and
how much of their own they keep, and how well they know how sure they are."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.accuracy.kinds import KIND_TASKS, quotes_of
from benchmarks.accuracy.tasks import TASKS, chosen
from benchmarks.figures.rounding import rounded
from bitheads import Engine
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import Text
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.training.data.background import parts_of, read_background
from bitheads.training.data.labelled_texts import LabelledTexts, read_labelled
from bitheads.training.data.tasks import file_of
from bitheads.training.heads.objectives import OBJECTIVES
from bitheads.training.metrics import auroc

NAME = "rejection"
COMMAND = "python -m benchmarks accuracy --data DIR --kinds DIR --shipped"
MOST = 1000
"""Texts of a source, or pairs, at most."""


@dataclass(frozen=True)
class Source:
    """Texts that no head was trained on, as background either.

    Attributes:
        option: the folder that it lies in, "kinds" or "data".
        its_business: heads for which such texts are no others: what they ask can be asked of them.
    """

    file: str
    option: str = "data"
    its_business: frozenset[str] = frozenset()


_OPINIONS = frozenset({"sentiment"})
_SAME = frozenset({"duplicate"})
SOURCES = {
    "wikipedia": Source("background/wikipedia.txt", "kinds"),
    "go_emotions": Source("go_emotions/test.tsv", "kinds", frozenset({"emotions"})),
    "pii": Source("pii/test.jsonl", "kinds"),
    "sts_b": Source("sts_b/dev.tsv", "kinds", _SAME),
    "mrpc": Source("mrpc/dev.tsv", its_business=_SAME),
    "qnli": Source("qnli/dev.tsv"),
    "mnli": Source("mnli/dev.tsv"),
    "rte": Source("rte/dev.tsv"),
    "cola": Source("cola/dev.tsv"),
    "wsd_semcor": Source("wsd_semcor/dev.tsv"),
    "dbpedia": Source("dbpedia/dev.tsv", its_business=frozenset({"topic"})),
    "imdb": Source("imdb/dev.tsv", its_business=_OPINIONS),
    "yelp5": Source("yelp5/dev.tsv", its_business=_OPINIONS),
    "amazon5": Source("amazon5/dev.tsv", its_business=_OPINIONS),
}
"""By name. Heads on pairs are asked about those of pairs, the others about each text of a pair."""

OUT_OF_SCOPE = Source("out_of_scope/clinc150.tsv", "kinds")
INTENT = "intent"
"""The head that those questions were written against: near its own, yet none of its intents."""


def run(options: argparse.Namespace, scratch: Path) -> None:
    """Asks every shipped head about its own test file and about all sources, and stores that.

    Raises InputError if data or a head is not there.
    """
    shipped_kinds = [
        name for name, task in KIND_TASKS.items() if task.shipped and not task.is_of_words
    ]
    tasks = chosen("--tasks", options.tasks, dict.fromkeys([*TASKS, *shipped_kinds]))
    sources = {name: _texts(options, source) for name, source in SOURCES.items()}
    out_of_scope = _texts(options, OUT_OF_SCOPE)
    make_bundle(BuildConfig(options.encoder, output=scratch / "bundle"), say)
    engine = Engine.load(scratch / "bundle")
    if missing := sorted({*tasks} - {*engine.tasks}):
        raise InputError(
            f"--encoder {options.encoder}: no head for {missing[0]} is shipped with it. Leave "
            "--shipped out to train some, or name others with --tasks."
        )
    outside = {}
    for name, texts in sources.items():
        outside[name] = engine.predict(texts)
        say(f"{name}: {len(texts)} texts and pairs")
    result: dict[str, dict[str, Any]] = {}
    for task in tasks:
        test = _test(options, task)
        own = engine.predict(test.texts, [task])[task]
        objective = OBJECTIVES[own.kind](own.labels)
        metrics = objective.metrics(own, objective.targets(test))
        metrics["accepted"] = float(own.accepted.mean())
        others = {
            name: _asked(predictions[task])
            for name, predictions in outside.items()
            if task in predictions and task not in SOURCES[name].its_business
        }
        result[task] = {key: rounded(value, 5) for key, value in metrics.items()}
        result[task]["texts"] = len(test)
        result[task]["sources"] = {name: _told(own, other) for name, other in others.items()}
        if task == INTENT:
            near = engine.predict(out_of_scope, [task])[task]
            result[task]["out_of_scope"] = {
                **_told(own, near),
                "auroc_of_top_probability": rounded(auroc(-own.probability, -near.probability), 5),
                "auroc_of_top_logit": rounded(auroc(*(-p.logits.max(1) for p in (own, near))), 5),
            }
        say(f"{task}: {result[task]}")
    record.write(NAME, COMMAND, result)


def _told(own: Prediction, other: Prediction) -> dict[str, float]:
    """How well the head tells a source's texts from its own, and how many it accepts."""
    inside, outside = own.reject_scores, other.reject_scores
    assert inside is not None, "shipped heads have a reject output"
    assert outside is not None, "shipped heads have a reject output"
    return {
        "texts": len(outside),
        "auroc": rounded(auroc(inside, outside), 5),
        "accepted": rounded(float(other.accepted.mean()), 5),
    }


def _asked(prediction: Prediction) -> Prediction:
    """Of the texts of the head's form."""
    return prediction[prediction.answered]


def _test(options: argparse.Namespace, task: str) -> LabelledTexts:
    if task in TASKS:
        return read_labelled(file_of(options.data / TASKS[task], "test"))
    path = file_of(getattr(options, KIND_TASKS[task].option) / KIND_TASKS[task].folder, "test")
    return read_labelled(path, quotes_of(path), kind=KIND_TASKS[task].kind)


def _texts(options: argparse.Namespace, source: Source) -> list[Text]:
    """At most MOST of a source, drawn at random; of pairs, and after them each of their texts."""
    path = getattr(options, source.option) / source.file
    if not path.is_file():
        raise InputError(f"--{source.option}: no {path}. Expected texts that are no task's there.")
    texts = [*dict.fromkeys(read_background(path, quotes_of(path)).texts)]
    rows = np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST])
    drawn = [texts[row] for row in rows]
    pairs: list[Text] = [text for text in drawn if isinstance(text, tuple)]
    return [*pairs, *dict.fromkeys(part for text in drawn for part in parts_of(text))]
