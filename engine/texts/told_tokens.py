"""Tokens told one by one: what each stands for, and where."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Encoding


def told_tokens(text: str, encoding: Encoding) -> list[dict[str, Any]]:
    """Of each token `id`, `text`, `special`, and `start` and `stop`, as text-embeddings-inference
    tells them: places are bytes of the text in UTF-8, and `text` is what stands there. A token that
    the tokenizer put there itself is `special`: it has its own name, and no place.

    Args:
        encoding: of this text, whole.
    """
    byte_of = byte_offsets(text).tolist()
    columns = (encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets)
    told = []
    for number, token, special, (start, stop) in zip(*columns, strict=True):
        if special:
            told.append({"id": number, "text": token, "special": True, "start": None, "stop": None})
        else:
            place = {"start": byte_of[start], "stop": byte_of[stop]}
            told.append({"id": number, "text": text[start:stop], "special": False, **place})
    return told


def byte_offsets(text: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where in UTF-8 each character of a text begins, and the text ends, int64 [characters + 1]."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])
