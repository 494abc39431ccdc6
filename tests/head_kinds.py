"""Heads of every kind, with and without refusing, whose decisions divide some texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from random_heads import random_head, random_two_texts_head

from bitheads import Engine, FeatureSpec, PackedFeatures, Prediction
from bitheads.engine.heads.cpu import HeadThreads, load_head, predict_heads
from bitheads.engine.heads.head import outputs_of, predictions_of
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.kinds import KINDS, Decision
from bitheads.engine.types import Text

LABELS = {
    "single_label": ("yes", "no", "per,haps"),
    "multi_label": ("joy", 'a "quoted\\" one', "Wut, Ärger 😀", "[]"),
    "ordinal": ("1", "2", "3", "4.5"),
    "regression": (),
    "token_label": ("PERSON", 'a "quoted\\" one', "Ärger 😀"),
}
REFUSING = ("never", "abstains", "rejects", "both")

SINGLE = [
    f"{start} {end}"
    for start in ("A film", "Wherever", "7 nights")
    for end in (
        "that lasts.",
        "of doubt, again and again",
        "😀 übermäßig",
        "?",
        "cost 12.50 or less",
        "with nobody in it. Nobody!",
    )
]
PAIRS = [(first, second) for first in SINGLE[:4] for second in SINGLE[9:12]]
TEXTS = [*SINGLE[:5], *PAIRS[:7], *SINGLE[5:], *PAIRS[7:], " ".join(SINGLE)]
"""Of both forms, mixed; the last is longer than tiny encoders read."""


def heads_of_every_kind(
    engine: Engine, texts: Sequence[Text], forms: Sequence[str] = ("single", "pair")
) -> list[FoldedHead]:
    """Named after their kind, how they refuse, and their form, such as `ordinal-both-pair`.

    Each has its thresholds at medians of what it says of the texts of its form: of each decision
    both sides are met.
    """
    made = []
    for form in forms:
        own = [text for text in texts if isinstance(text, tuple) == (form != "single")]
        pairs = None
        if form == "two_texts":
            own = [text for pair in own for text in pair]
            pairs = np.arange(len(own)).reshape(-1, 2)
        features = engine.encode(own, words=True)
        for kind, labels in LABELS.items():
            for refusing in _ways_to_refuse(kind, form):
                head = _head(engine.spec, kind, labels, refusing, form, seed=len(made))
                made.append(_decided(head, features, pairs))
    return made


def _ways_to_refuse(kind: str, form: str) -> Sequence[str]:
    if KINDS[kind].is_of_words:
        return REFUSING[:1] if form == "single" else ()
    return REFUSING if "abstain_below" in KINDS[kind].settings else ("never", "rejects")


def _head(
    spec: FeatureSpec, kind: str, labels: tuple[str, ...], refusing: str, form: str, seed: int
) -> FoldedHead:
    """With decisions that let all pass."""
    decision = Decision(
        thresholds=(0.0,) * len(labels) if kind == "multi_label" else (),
        cuts=tuple(map(float, range(len(labels) - 1))) if kind == "ordinal" else (),
        value_range=(-3e38, 3e38) if kind == "regression" else None,
        abstain_below=0.0 if refusing in ("abstains", "both") else None,
        reject_above=3e38 if refusing in ("rejects", "both") else None,
    )
    outputs = KINDS[kind].num_logits(labels) + (decision.reject_above is not None)
    name = f"{kind}-{refusing}-{form}"
    options = {"labels": labels, "kind": kind, "decision": decision}
    if form == "two_texts":
        return random_two_texts_head(spec, name, classes=outputs, seed=seed, **options)
    return random_head(spec, name, classes=outputs, seed=seed, form=form, **options)


def _decided(
    head: FoldedHead, features: PackedFeatures, pairs: NDArray[np.int64] | None
) -> FoldedHead:
    """With decisions that divide these texts, or pairs of them."""
    middle = np.median(outputs_of(_ask(head, features, pairs)), axis=0)
    if head.pair is not None:
        half = replace(head.pair, output_bias=head.pair.output_bias - middle)
        head = replace(head, pair=half)
    else:
        head = replace(head, output_bias=head.output_bias - middle)
    found = _ask(head, features, pairs)
    logits, decision = found.logits, head.decision
    if found.words is not None:  # some words are of spans, and some texts have none
        bias = head.output_bias.copy()
        bias[0] += _quantiles(logits[:, 1:].max(axis=1) - logits[:, 0], [0.75])[0]
        return replace(head, output_bias=bias)
    if decision.thresholds:
        decision = replace(decision, thresholds=_quantiles(logits, 0.6))
    if decision.cuts:
        shares = np.arange(1, len(head.labels)) / len(head.labels)
        decision = replace(decision, cuts=_quantiles(logits[:, 0], shares))
    if decision.value_range is not None:
        low, high = _quantiles(logits[:, 0], [0.2, 0.8])
        decision = replace(decision, value_range=(low, high))
    if found.reject_logits is not None:
        scores = KINDS[head.kind].reject_scores(found.reject_logits, logits)
        decision = replace(decision, reject_above=_quantiles(scores, [0.7])[0], reject_scale=0.6)
    if decision.abstain_below is not None:
        likely = replace(found, decision=decision).probability
        decision = replace(decision, abstain_below=_quantiles(likely, [0.5])[0])
    return replace(head, decision=decision)


def _ask(head: FoldedHead, features: PackedFeatures, pairs: NDArray[np.int64] | None) -> Prediction:
    loaded = [load_head(head)]
    if pairs is None:
        return predict_heads(features, loaded)[head.task]
    with HeadThreads(1) as threads:
        outputs = threads.pair_outputs(threads.text_vectors(features, loaded), pairs, loaded)
    return predictions_of(loaded, outputs)[head.task]


def _quantiles(values: NDArray[np.float32], shares: object) -> tuple[float, ...]:
    return tuple(np.quantile(values.astype(np.float64), shares, axis=0).tolist())
