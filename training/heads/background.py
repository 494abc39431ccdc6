"""Texts that are none of a head's business: what its reject output is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.types import Text
from bitheads.training.data.labelled_texts import LabelledTexts, read_background

LEAST = 50
"""Background texts, at least: of fewer nothing general is learned."""

HELD_OUT = 5
"""One in so many is kept from training, to see what the reject output makes of texts it never saw."""

NEAR = 0.95
"""Cosine of the mean features of two texts from which on they are taken for the same."""


@dataclass(frozen=True, eq=False)
class Background:
    """What is trained on, and what is held out."""

    train: PackedFeatures
    held_out: PackedFeatures


def default_background() -> Path:
    """The texts that come with the project; see background.md beside them."""
    return Path(str(files("bitheads.training.data") / "background.txt"))


def read_backgrounds(paths: Sequence[Path], tasks: Sequence[LabelledTexts]) -> list[str]:
    """The different texts of all files, but for those that are texts of the task itself.

    Args:
        tasks: the task's own files.

    Raises InputError for what cannot be read, for a file that is one of the task's, and for too few
    texts.
    """
    own = {data.sha256: data.path for data in tasks}
    texts: dict[str, str] = {}
    for path in paths:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        if sha256 in own:
            raise InputError(
                f"--background {path}: is the file {own[sha256]} of the task itself, expected texts "
                "that are none of its business. Name another file."
            )
        texts |= {plain(text): text for text in read_background(path)}
    for data in tasks:
        for text in data.texts:
            for part in (text,) if isinstance(text, str) else text:
                texts.pop(plain(part), None)
    if len(texts) < LEAST:
        raise InputError(
            f"--background {', '.join(map(str, paths))}: got {len(texts)} texts that are not the "
            f"task's own, expected at least {LEAST}. Add more, of as many kinds as the head may "
            "meet, or train without: --no-background."
        )
    return list(texts.values())


def plain(text: str) -> str:
    """The text without what does not make another one of it."""
    return " ".join(text.casefold().split())


def of_form(texts: Sequence[str], form: str, seed: int) -> list[Text]:
    """Background texts of a head's form: for pairs, each beside another one at random."""
    if form == "single":
        return list(texts)
    others = np.random.default_rng(seed).permutation(len(texts))
    return [(text, texts[i]) for text, i in zip(texts, others, strict=True)]


def split_background(features: PackedFeatures, train: PackedFeatures) -> Background:
    """Background features without near-duplicates of the training texts, in two parts.

    Raises InputError if hardly any is left.
    """
    kept = np.flatnonzero(_nearest(_means(features), _means(train)) < NEAR)
    if len(kept) < LEAST:
        raise InputError(
            f"--background: got {len(kept)} texts that are not nearly the task's own, expected at "
            f"least {LEAST}. Add more of other kinds, or train without: --no-background."
        )
    is_held_out = np.arange(len(kept)) % HELD_OUT == HELD_OUT - 1
    return Background(features[kept[~is_held_out]], features[kept[is_held_out]])


def _means(features: PackedFeatures) -> NDArray[np.float32]:
    """The mean feature of each text, less that of all texts, of length 1: float32 [texts, dim]."""
    means = np.empty((len(features), features.spec.dim), np.float32)
    for start in range(0, len(features), 256):
        part = features[start : start + 256]
        sums = np.add.reduceat(part.unpack(), part.offsets[:-1], axis=0)
        means[start : start + 256] = sums / part.num_tokens[:, None]
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _nearest(texts: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest cosine of each text with any of the others, float32 [texts]."""
    nearest = np.empty(len(texts), np.float32)
    for start in range(0, len(texts), 1024):
        nearest[start : start + 1024] = (texts[start : start + 1024] @ others.T).max(axis=1)
    return nearest
