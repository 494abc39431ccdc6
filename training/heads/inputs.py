"""The data as each form of head reads it: encoded texts, joint pairs, or pairs of texts apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bitheads.engine.errors import InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.kinds import KINDS
from bitheads.engine.types import Text
from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.heads.background import BackgroundFeatures, split_background
from bitheads.training.heads.objectives import Objective
from bitheads.training.heads.objectives.objective import Targets
from bitheads.training.heads.pair_features import Codes, encode_apart

TWO_TEXTS = "two_texts"
PAIR_FORMS = (TWO_TEXTS, "pair")
"""Heads of pairs, whose texts the encoder reads each by itself, or together. The first is less work
where texts are in several pairs, so it is kept unless the other is better by more than chance."""

Say = Callable[[str], None]

Encode = Callable[..., PackedFeatures]
"""As Engine.encode, of which it has the arguments `long_texts` and `words`."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The data as one form of head reads it.

    Attributes:
        texts: by set, what is asked about.
        rows: by set, what outputs are of: those, or their words.
        targets: by set, of the rows.
    """

    form: str
    texts: Mapping[str, Codes]
    rows: Mapping[str, Codes]
    targets: Mapping[str, Targets]
    background: BackgroundFeatures | None


def forms_of(of_texts: str, asked: str | None, takes_pairs: bool) -> tuple[str, ...]:
    """Those that are to be tried. Raises InputError for one that such texts cannot have.

    Args:
        takes_pairs: whether the encoder reads two texts together.
    """
    if of_texts == "single":
        if asked is not None and asked != "single":
            raise InputError(
                f"form: got {asked!r} for single texts, expected it for pairs. Leave it out."
            )
        return ("single",)
    if asked is None:
        return PAIR_FORMS if takes_pairs else (TWO_TEXTS,)
    if asked not in PAIR_FORMS:
        raise InputError(f"form: got {asked!r} for pairs, expected one of {list(PAIR_FORMS)}.")
    return (asked,)


def encode_inputs(
    encode: Encode,
    form: str,
    sets: Mapping[str, LabelledTexts],
    targets: Mapping[str, Targets],
    objective: Objective,
    others: Sequence[Text],
    say: Say,
) -> Inputs:
    """The data for a form of `forms_of`.

    Args:
        others: background texts; none for a head without a reject output.

    Raises InputError for texts without a word where outputs are of words, and what `encode` raises.
    """
    if form == TWO_TEXTS:
        return _encode_apart(encode, sets, targets, others, say)
    words = KINDS[objective.kind].is_of_words
    features = {name: _encode(encode, name, data, say, words) for name, data in sets.items()}
    targets, rows = dict(targets), {}
    for name, data in sets.items():
        targets[name], rows[name] = objective.encoded(targets[name], features[name])
        if not len(rows[name]):
            raise InputError(
                f"{data.path}: has texts without a word, expected some words. Add texts."
            )
        if remark := objective.remark(targets[name]):
            say(f"{name}: {remark}")
    background = _split(encode(others), features["train"], say) if others else None
    return Inputs(form, features, rows, targets, background)


def _encode_apart(
    encode: Encode,
    sets: Mapping[str, LabelledTexts],
    targets: Mapping[str, Targets],
    others: Sequence[Text],
    say: Say,
) -> Inputs:
    """Each text of the pairs by itself, and once, whatever set it is in."""
    all_pairs = [*(text for data in sets.values() for text in data.texts), *others]
    whole = encode_apart(all_pairs, encode)
    say(f"by themselves: {len(whole.texts)} texts, {whole.texts.num_tokens.sum()} tokens")
    found, start = {}, 0
    for name, data in sets.items():
        found[name] = whole[start : start + len(data)]
        start += len(data)
    background = _split(whole[start:], found["train"], say) if others else None
    return Inputs(TWO_TEXTS, found, found, targets, background)


def _split(others: Codes, train: Codes, say: Say) -> BackgroundFeatures:
    background = split_background(others, train)
    held_out = len(background.held_out)
    say(f"background: {len(background.train) + held_out} texts, {held_out} of them held out")
    return background


def _encode(
    encode: Encode, name: str, data: LabelledTexts, say: Say, words: bool
) -> PackedFeatures:
    # Of spans, those behind a cut are as good to learn from as any.
    features = encode(data.texts, long_texts="split" if words else "cut", words=words)
    stats = features.stats
    say(
        f"{name}: {stats.num_texts} {data.form} texts, {stats.num_tokens} tokens, "
        f"{stats.num_truncated} cut, {features.nbytes / 1e6:.1f} MB of codes, encoded in "
        f"{stats.encode_s:.1f} s"
    )
    return features
