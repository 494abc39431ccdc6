"""Texts that are none of a head's business: what its reject output is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.types import Text
from bitheads.training.data.background import Background, parts_of
from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.heads.linear_model import pool
from bitheads.training.heads.pair_features import Codes

LEAST = 50
"""Background texts, at least: of fewer nothing general is learned."""

MOST = 16_000
"""Background texts, at most: each file gives its share of them, drawn at random."""

HELD_OUT = 5
"""One in so many is kept from training, to see what a reject output makes of texts it never saw."""

NEAR = 0.9
"""Cosine of the mean features of two texts, less what all texts have in common, from which on they
are taken for the same."""


@dataclass(frozen=True, eq=False)
class BackgroundFeatures:
    """What is trained on, and what is held out."""

    train: Codes
    held_out: Codes


def default_background() -> Path:
    """The texts that come with the project; see background.md beside them."""
    return Path(str(files("bitheads.training.data") / "background.txt"))


def background_texts(
    backgrounds: Sequence[Background], task: Sequence[LabelledTexts], seed: int = 0
) -> list[Text]:
    """The different texts of all files in the task's form, but for those that are its own.

    For a task on pairs, a text that is none is put beside another one at random; of a pair, a task
    on single texts reads each.

    Args:
        task: its files.

    Raises InputError for a file that is one of the task's, and for too few texts.
    """
    own_files = {data.sha256: data.path for data in task}
    singles: dict[str, str] = {}
    pairs: dict[str, Text] = {}
    random = np.random.default_rng(seed)
    for found in backgrounds:
        drawn = np.sort(random.permutation(len(found))[: MOST // len(backgrounds)])
        texts_of_file = [found.texts[i] for i in drawn]
        if found.sha256 in own_files:
            raise InputError(
                f"background {found.path}: is the file {own_files[found.sha256]} of the task "
                "itself, expected texts that are none of its business. Name another file: "
                "--background."
            )
        if found.form == "pair" and task[0].form == "pair":
            pairs |= {" ".join(map(_plain, parts_of(text))): text for text in texts_of_file}
        else:
            singles |= {_plain(part): part for text in texts_of_file for part in parts_of(text)}
    own = {_plain(part) for data in task for text in data.texts for part in parts_of(text)}
    texts: list[Text] = [text for plain, text in singles.items() if plain not in own]
    if task[0].form == "pair":
        others = random.permutation(len(texts))
        texts = [(str(text), str(texts[i])) for text, i in zip(texts, others, strict=True)]
        texts += [pair for pair in pairs.values() if own.isdisjoint(map(_plain, parts_of(pair)))]
    if len(texts) < LEAST:
        shown = ", ".join(str(found.path) for found in backgrounds)
        raise InputError(
            f"background {shown}: got {len(texts)} texts that are not the task's own, expected at "
            f"least {LEAST}. Name files with more, of as many kinds as the head may meet "
            "(--background), or train without (--no-background)."
        )
    return texts


def _plain(text: str) -> str:
    """The text without what does not make another one of it."""
    return " ".join(text.casefold().split())


def split_background(features: Codes, train: Codes) -> BackgroundFeatures:
    """Background features without near-duplicates of the training texts, in two parts.

    Raises InputError if hardly any is left.
    """
    texts, own = (pool(found, PositionPooling.MEAN) for found in (features, train))
    center = np.concatenate([texts, own]).mean(axis=0)
    texts, own = (_directions(found - center) for found in (texts, own))
    kept = np.flatnonzero(_nearest(texts, own) < NEAR)
    if len(kept) < LEAST:
        raise InputError(
            f"background: got {len(kept)} texts that are not nearly the task's own, expected at "
            f"least {LEAST}. Name files with others (--background), or train without "
            "(--no-background)."
        )
    is_held_out = np.arange(len(kept)) % HELD_OUT == HELD_OUT - 1
    return BackgroundFeatures(features[kept[~is_held_out]], features[kept[is_held_out]])


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors, float32 [texts, dim], at length 1."""
    found: NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return found


def _nearest(texts: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest cosine of each text with any of the others, float32 [texts]."""
    nearest = np.empty(len(texts), np.float32)
    for start in range(0, len(texts), 1024):
        nearest[start : start + 1024] = (texts[start : start + 1024] @ others.T).max(axis=1)
    return nearest
