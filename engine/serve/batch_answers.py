"""What heads say of rows of several requests, each head of those that ask it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import words_of_windows
from bitheads.engine.engine import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.head import Head, is_of_words, outputs_of, reads_words
from bitheads.engine.serve.fair_queue import Row
from bitheads.engine.serve.request import Request
from bitheads.engine.texts.forms import reads_apart
from bitheads.engine.types import Stats

Outputs = dict[Head, NDArray[np.float32]]


def answer_rows(
    engine: Engine, rows: Sequence[Row[Request]], codes: PackedFeatures
) -> tuple[PackedFeatures, Outputs]:
    """The rows' features, with what their requests know of them, and the answers of every head.

    Outputs are by head, not by task: while one is replaced, requests may have either. Of heads of
    the form two_texts those are the texts' vectors. Of a row that did not ask a head there is no
    answer: what stands there is not initialized.

    Args:
        codes: of the rows, one after the other, whoever encoded them.
    """
    texts = [row.owner.texts[row.index] for row in rows]
    asked = _rows_by_head(rows)
    features = replace(
        codes,
        pairs=np.array([text.is_pair for text in texts], np.bool_),
        words=words_of_windows(texts) if reads_words([*asked]) else None,
    )
    started_s = time.perf_counter()
    answers = _predict(engine, features, asked)
    heads_s = time.perf_counter() - started_s
    return replace(features, stats=codes.stats + Stats(heads_s=heads_s)), answers


def hand_out(
    rows: Sequence[Row[Request]], features: PackedFeatures, answers: Outputs
) -> list[Request]:
    """Every row's results to its request; returns the requests that are whole."""
    whole = []
    for i, row in enumerate(rows):
        request = row.owner
        if request.codes is not None:
            own = _rows(request.offsets, row.index)
            request.codes[own] = features.codes[_rows(features.offsets, i)]
        own_words = found_words = slice(0)
        is_joint = row.index < request.num_joint
        if request.embeddings is not None and features.embeddings is not None and is_joint:
            request.embeddings[row.index] = features.embeddings[i]
        if request.words is not None and features.words is not None and is_joint:
            own_words = _rows(request.words.offsets, row.index)
            found_words = _rows(features.words.offsets, i)
        place = row.index if is_joint else row.index - request.num_joint
        heads = zip(request.outputs, request.heads, request.are_of_words, strict=True)
        for outputs, head, of_words in heads:
            if reads_apart(head) == is_joint:
                continue
            if of_words:
                outputs[own_words] = answers[head][found_words]
            else:
                outputs[place] = answers[head][i]
        request.waiting -= 1
        if not request.waiting:
            whole.append(request)
    for request in dict.fromkeys(row.owner for row in rows):
        request.stats += features.stats
    return whole


def _predict(engine: Engine, features: PackedFeatures, asked: dict[Head, list[int]]) -> Outputs:
    """asked: the rows whose requests ask the head."""
    groups: dict[tuple[int, ...], list[Head]] = {}
    for head, asked_of in asked.items():
        groups.setdefault(tuple(asked_of), []).append(head)
    answers: Outputs = {}
    for rows, heads in groups.items():
        if len(rows) == len(features):
            answers |= _outputs(engine, features, heads)
            continue
        chosen = np.array(rows)
        for head, outputs in _outputs(engine, features[chosen], heads).items():
            count, places = len(features), chosen
            if is_of_words(head) and features.words is not None:
                count = len(features.words.table)
                places, _ = features.words.rows_of(chosen)
            answers[head] = np.empty((count, outputs.shape[1]), np.float32)
            answers[head][places] = outputs
    return answers


def _outputs(engine: Engine, features: PackedFeatures, heads: Sequence[Head]) -> Outputs:
    """Those of heads that are all asked of all of the features."""
    apart = [head for head in heads if reads_apart(head)]
    vectors = engine.encoder.text_vectors(features, apart) if apart else []
    answers: Outputs = dict(zip(apart, vectors, strict=True))
    left = [head for head in heads if head not in answers]
    while left:
        by_task = {head.task: head for head in left}
        found = engine.encoder.predict(features, list(by_task.values()))
        for task, head in by_task.items():
            answers[head] = outputs_of(found[task])
        left = [head for head in left if head not in answers]
    return answers


def _rows_by_head(rows: Sequence[Row[Request]]) -> dict[Head, list[int]]:
    """Of each head that is asked the rows that it is asked of."""
    asked: dict[Head, list[int]] = {}
    for i, row in enumerate(rows):
        is_joint = row.index < row.owner.num_joint
        for head in row.owner.heads:
            if reads_apart(head) != is_joint:
                asked.setdefault(head, []).append(i)
    return asked


def _rows(offsets: NDArray[np.int64], index: int) -> slice:
    """Those that one of ragged items owns."""
    return slice(int(offsets[index]), int(offsets[index + 1]))
