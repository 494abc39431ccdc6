"""The features that a trained head reads of some texts, whatever its form and kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.head import Head, is_of_words
from bitheads.engine.types import Text
from bitheads.training.heads.pair_features import Codes, encode_apart


def features_of(head: Head, texts: Sequence[Text], encode: Callable[..., PackedFeatures]) -> Codes:
    """For `train_head.predict`.

    Args:
        encode: as Engine.encode, of which it has the arguments `long_texts` and `words`.
    """
    if head.form != "two_texts":
        words = is_of_words(head)
        return encode(texts, long_texts="split" if words else "cut", words=words)
    return encode_apart(texts, encode)
