"""`bitheads.train_head`: a head of what a program has in memory, such as a notebook's table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitheads.engine import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.types import Text
from bitheads.training.data.background import Background
from bitheads.training.data.labelled_texts import LabelledTexts, labelled_from
from bitheads.training.heads.config import FitConfig, HeadSettings
from bitheads.training.heads.decision_options import DEFAULT_OPTIONS, DecisionOptions
from bitheads.training.heads.encoded_texts import encoded_texts
from bitheads.training.heads.train_head import NO_CHANGES, train_head_on


def train_head(
    engine: Engine,
    texts: Any,
    labels: Any = None,
    *,
    dev: Any = None,
    test: Any = None,
    task: str = "task",
    kind: str | None = None,
    fit: FitConfig | Mapping[str, Any] = NO_CHANGES,
    decision: DecisionOptions = DEFAULT_OPTIONS,
    learning_rates: Sequence[float] = (),
    background: Sequence[Text] | None = None,
    reject: bool = True,
    form: str | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> FoldedHead:
    """Trains a task head on an engine's codes; `save` writes it, `engine.add_head` takes it.

    Texts are encoded once, however often they come: codes stay in memory with the engine.

    Args:
        engine: whose codes the head will read.
        texts: a list, array or column of texts, or of pairs of texts; or, without labels, a whole
            table with the columns `text`, or `text_a` and `text_b`, and one of `label`, `labels`,
            `score` and `spans`, as in files: a list of dicts, a pandas or polars DataFrame, a
            pyarrow Table, a Dataset of Hugging Face.
        labels: as many, in a list, array or column: one label each, a list of labels, a number with
            decimals, or a list of spans.
        dev: decides when training stops, `(texts, labels)` or such a table; without it, parts of
            the training texts are held back in turn.
        test: measured once at the end, likewise.
        task: its name.
        kind: of the head; None for what the labels say. "ordinal" must be said.
        fit: how it is trained; of a mapping, those settings that are to differ from what is best
            for the kind, such as {"epochs": 10}.
        decision: how its decision is chosen.
        learning_rates: peaks to try; the one with the best dev score is kept.
        background: texts that are none of its business; None for those that come with the project.
        reject: whether it has a reject output, which learns from the background.
        form: of pairs, "pair", whose texts the encoder reads together, or "two_texts", each by
            itself; None for the better on dev.
        say: called with one line of progress at a time, such as `print`.

    Raises InputError for what is malformed, and TrainingError for a loss that is not finite.
    """
    sets = {"train": labelled(texts, labels, kind, "texts")}
    for name, given in (("dev", dev), ("test", test)):
        if given is not None:
            sets[name] = _labelled_pair(given, sets["train"].kind, name)
    others = [] if background is None else [_background(background)]
    return train_head_on(
        engine,
        encoded_texts(engine).encode,
        sets,
        HeadSettings(task, tuple(learning_rates), "float32", decision, reject, form),
        fit,
        others,
        say,
    ).head


def labelled(texts: Any, labels: Any, kind: str | None, name: str) -> LabelledTexts:
    """Labelled texts of texts and their labels, or of a table that has both.

    Raises InputError for what is malformed.
    """
    if labels is None:
        return labelled_from(texts, kind, name)
    each, of_each = as_list(texts, name), as_list(labels, "labels")
    if len(each) != len(of_each):
        raise InputError(
            f"{name}: got {len(each)} texts and {len(of_each)} labels, expected as many labels as "
            "texts. Leave out what has no label."
        )
    return labelled_from(list(zip(each, of_each, strict=True)), kind, name)


def as_list(column: Any, name: str) -> list[Any]:
    """The items of a list, an array, or a column of pandas, polars or pyarrow.

    Raises InputError for a single text, and for what has no items.
    """
    for convert in ("to_list", "to_pylist", "tolist"):
        if hasattr(column, convert):
            found = getattr(column, convert)()
            return found if isinstance(found, list) else [found]
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Sequence):
        raise InputError(
            f"{name}: got {column!r:.60}, a {type(column).__name__}, expected a list, an array or "
            "a column. Put a single text into a list."
        )
    return list(column)


def _labelled_pair(given: Any, kind: str, name: str) -> LabelledTexts:
    """Of `(texts, labels)`, or of a table."""
    if isinstance(given, tuple) and len(given) == 2:
        return labelled(*given, kind, name)
    return labelled(given, None, kind, name)


def _background(texts: Sequence[Text]) -> Background:
    found = [
        tuple(text) if isinstance(text, list) else text for text in as_list(texts, "background")
    ]
    is_pair = any(isinstance(text, tuple) for text in found)
    sha256 = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    return Background(Path("background"), found, "pair" if is_pair else "single", sha256)
