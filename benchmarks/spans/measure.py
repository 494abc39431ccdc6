"""Words beside tokenizing, by the library's part and ours; and heads per word, on one core.

In time of the processor, which what others do on the machine changes least.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks import record
from benchmarks.contenders.native_heads import NativeCall, fastest_level
from benchmarks.figures.processor_time import least_us
from benchmarks.figures.rounding import rounded
from benchmarks.inputs.random_heads import random_codes, random_heads, spec_of
from benchmarks.inputs.shapes import SHAPES, Shape
from benchmarks.inputs.texts import mixed, source_of
from benchmarks.options import command, require_at_least
from bitheads.engine import bundle
from bitheads.engine.batching import words_of_windows
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.features.spec import PositionPooling, Quantization
from bitheads.engine.heads.cpu import LaidOutHead, lay_out
from bitheads.engine.predictions import Prediction
from bitheads.engine.text_batches import open_tokenizer
from bitheads.engine.texts.tokenize import Tokens

SHAPE = "all-MiniLM-L6-v2"
HEADS = (1, 8)
LABELS = ("PERSON", "PLACE", "DATE")
ROUNDS = 15
HEAD_WORDS = 8192
"""Words per call of the heads."""


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/spans.json; a quick run only prints."""
    require_at_least(1, options, "texts")
    rounds = 2 if options.quick else ROUNDS
    texts = mixed(options.data, 40 if options.quick else options.texts)
    tokenizing, windows = _tokenizing(options.bundle, texts, rounds)
    result = {
        "quick": options.quick,
        "texts": source_of(options.data),
        "tokenizing": tokenizing,
        "heads": _heads(windows, SHAPES[SHAPE], rounds),
    }
    record.keep("spans", command("spans", options), result, options.quick)


def _tokenizing(folder: Path, texts: list[str], rounds: int) -> tuple[dict[str, Any], list[Tokens]]:
    """Microseconds of a processor per text, and what words add to it.

    The library has one thread.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = open_tokenizer(folder, bundle.read_manifest(folder))
    library = Tokenizer.from_file(str(folder / bundle.TOKENIZER))
    library.no_padding()
    library.no_truncation()
    ascii_texts = [text for text in texts if text.isascii()]
    windows = tokenizer(texts, words=True)
    least = least_us(
        {
            "without_words": (partial(tokenizer, texts), len(texts)),
            "with_words": (partial(tokenizer, texts, words=True), len(texts)),
            "ascii_without_words": (partial(tokenizer, ascii_texts), len(ascii_texts)),
            "ascii_with_words": (partial(tokenizer, ascii_texts, words=True), len(ascii_texts)),
            "library_without_places": (partial(library.encode_batch_fast, texts), len(texts)),
            "library_with_places": (partial(library.encode_batch, texts), len(texts)),
        },
        rounds,
    )
    of_library = least["library_with_places"] - least["library_without_places"]
    return {
        "texts": len(texts),
        "ascii_texts": len(ascii_texts),
        "tokens": int(sum(window.ids.size for window in windows)),
        "words": len(words_of_windows(windows).table),
        "processor_us": {name: rounded(value) for name, value in least.items()},
        "added": rounded(least["with_words"] / least["without_words"] - 1),
        "added_in_ascii": rounded(least["ascii_with_words"] / least["ascii_without_words"] - 1),
        "added_by_library": rounded(of_library / least["without_words"]),
    }, windows


def _heads(windows: list[Tokens], shape: Shape, rounds: int) -> dict[str, Any]:
    """Microseconds per word and head, on random signs of real words."""
    features = _words(windows, shape)
    words, tokens = len(features), features.offsets[-1]
    cells = []
    for pooling in PositionPooling:
        heads = list(_laid_out(pooling, features, shape))
        calls = {count: NativeCall(features, heads[:count], fastest_level()) for count in HEADS}
        least = least_us({n: (call, words * n) for n, call in calls.items()}, rounds)
        for count, us in least.items():
            name = {"pooling": pooling.value, "heads": count}
            cells.append({**name, "processor_us": rounded(us)})
    return {
        "dim": shape.dim,
        "level": fastest_level(),
        "words": words,
        "tokens": int(tokens),
        "labels": len(LABELS),
        "cells": cells,
        "decoding": _decoding(windows, rounds),
    }


def _words(windows: list[Tokens], shape: Shape) -> PackedFeatures:
    """Codes of words: as many tokens as words of the texts have, random signs."""
    table = words_of_windows(windows).table[:HEAD_WORDS]
    counts = table[:, 1].astype(np.int64)
    codes = random_codes(spec_of(shape, Quantization.SIGN), int(counts.sum()), 1)
    return replace(codes, offsets=offsets_of(counts))


def _laid_out(
    pooling: PositionPooling, features: PackedFeatures, shape: Shape
) -> Iterator[LaidOutHead]:
    outputs = 1 + 2 * len(LABELS)
    for head in random_heads(features.spec, shape.attention_heads, max(HEADS), outputs):
        if pooling is PositionPooling.ATTENTION:
            yield lay_out(head)
        else:
            yield lay_out(replace(head, position_pooling=pooling, query=None, value=None))


def _decoding(windows: list[Tokens], rounds: int) -> dict[str, Any]:
    """Microseconds per word that logits take to become spans, a third of the words in one."""
    words = words_of_windows(windows)
    logits = np.random.default_rng(0).normal(size=(len(words.table), 1 + 2 * len(LABELS)))
    logits[:, 0] += 2
    prediction = Prediction(LABELS, logits.astype(np.float32), "token_label", words=words)
    share = float((prediction.logits.argmax(axis=1) > 0).mean())
    least = least_us(
        {
            "arrays": (lambda: prediction.found_spans, len(words.table)),
            "objects": (lambda: prediction.spans, len(words.table)),
        },
        rounds,
    )
    return {"inside": rounded(share), "processor_us": {k: rounded(us) for k, us in least.items()}}
