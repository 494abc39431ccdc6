"""Texts become batches: tokenized, and cut as an encoder wants them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import BatchedTexts, cut_batches
from bitheads.engine.bundle import TOKENIZER, EncoderInfo, Manifest
from bitheads.engine.encoder import Encoder
from bitheads.engine.errors import InputError
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.texts.forms import are_pairs
from bitheads.engine.texts.tokenize import MAX_CHARS, TextTokenizer
from bitheads.engine.types import Stats, Text

LONG_TEXTS = ("cut", "split")
"""What can become of texts over the encoder's maximum length; see `Engine.encode`."""

logger = logging.getLogger("bitheads")


def is_split(long_texts: str) -> bool:
    """Whether long texts are read in windows. Raises InputError for what is not of LONG_TEXTS."""
    if long_texts not in LONG_TEXTS:
        raise InputError(f"long_texts: got {long_texts!r}, expected one of {list(LONG_TEXTS)}.")
    return long_texts == "split"


def open_tokenizer(
    folder: Path, manifest: Manifest, rows: tuple[int | None, int | None] = (None, None)
) -> TextTokenizer:
    """A bundle's tokenizer, with its limit and its prefix.

    Args:
        rows: of the encoder's tables of tokens and of token types, see TextTokenizer.

    Raises BundleError as TextTokenizer does.
    """
    length, prefix = manifest.encoder.max_length, manifest.spec.prefix
    return TextTokenizer(folder / TOKENIZER, length, *rows, prefix)


def make_batches(
    texts: Sequence[Text],
    tokenizer: TextTokenizer,
    encoder: Encoder[Any],
    info: EncoderInfo,
    max_batch_tokens: int,
    split: bool,
    first_index: int = 0,
    words: bool = False,
    chosen: NDArray[np.int64] | None = None,
) -> BatchedTexts:
    """Tokenizes texts and cuts them into batches.

    Args:
        info: of the encoder.
        max_batch_tokens: see `Engine.encode`.
        split: whether long texts are read in windows.
        first_index: what the first of the texts is called in errors.
        words: find those of single texts.
        chosen: int64 [texts], which texts of a call they are; None: all.

    Raises InputError for items that are no texts and for pairs that would have to be split.
    """
    started_s = time.perf_counter()
    windows = tokenizer(texts, split, first_index, words)
    stats = Stats(
        num_texts=len(texts),
        num_truncated=sum(window.truncated for window in windows),
        tokenize_s=time.perf_counter() - started_s,
    )
    lengths = np.array([window.ids.size for window in windows], np.int64)
    window_offsets = offsets_of(lengths)
    offsets = window_offsets
    if len(windows) > len(texts):
        offsets = offsets[[*(not window.continues for window in windows), True]]
    padded = encoder.pad_lengths(lengths)
    rows = cut_batches(padded, max_batch_tokens, encoder.call_tokens)
    return BatchedTexts(
        windows=windows,
        window_offsets=window_offsets,
        offsets=offsets,
        padded=padded,
        rows=rows,
        texts=np.arange(len(texts)) if chosen is None else chosen,
        pairs=are_pairs(texts),
        pad_id=info.pad_id,
        stats=stats,
        has_words=words,
    )


def warn_of_cut(stats: Stats, info: EncoderInfo, split: bool) -> None:
    """Logs how many of a call's texts were too long, if any were."""
    if stats.num_truncated:
        logger.warning(
            "%d of %d texts were longer than %s and were cut",
            stats.num_truncated,
            stats.num_texts,
            f"{MAX_CHARS} characters" if split else f"{info.max_length} tokens",
        )
