"""Texts with what a checkpoint wants to be put before them."""

from __future__ import annotations

from collections.abc import Sequence

from bitheads.engine.texts.tokenize import check_texts
from bitheads.engine.types import Text


def put_before(prompt: str, texts: Sequence[Text]) -> list[Text]:
    """Each text, or a pair's first, behind the prompt.

    Raises InputError for what is no sequence of texts.
    """
    found: list[Text] = []
    for first, *second in check_texts(texts):
        found.append((prompt + first, second[0]) if second else prompt + first)
    return found
