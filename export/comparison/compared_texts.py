"""Texts with what transformers makes of them, which a bundle's sessions are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitheads.engine.process.cores import count_cores
from bitheads.engine.texts.tokenize import TextTokenizer, Tokens
from bitheads.engine.types import PlacedBatch, Text
from bitheads.export.comparison.reference_model import (
    ReferenceModel,
    ReferenceStates,
    ReferenceTokens,
)
from bitheads.export.errors import ExportError
from bitheads.export.texts import token_batches

Say = Callable[[str], None]
SAY_EVERY_S = 10.0
SHOWN_CHARS, SHOWN_IDS = 80, 5


@dataclass(frozen=True, eq=False)
class ComparedTexts:
    """Texts as the runtime feeds them to a session, and as transformers computes them.

    Attributes:
        names: what each text is, for messages.
        lengths: int64 [texts], tokens of each.
        batches: all of them, padded and batched as the engine does it.
        layers: the source model's hidden states, float32 [tokens, dim] each, text by text.
        embeddings: its embeddings, float32 [texts, embedding dim]; None where there are none.
    """

    names: Sequence[str]
    lengths: NDArray[np.int64]
    batches: list[PlacedBatch]
    layers: list[NDArray[np.float32]]
    embeddings: NDArray[np.float32] | None = None

    def expected(self, batch: PlacedBatch) -> list[NDArray[np.float32]]:
        """The layers of a batch's texts, float32 [tokens, dim] each, row by row."""
        spans = zip(batch.token_offsets, batch.tokens.lengths, strict=True)
        rows = np.concatenate([np.arange(start, start + size) for start, size in spans])
        return [layer[rows] for layer in self.layers]


def run_reference(
    reference: ReferenceModel,
    tokenizer: TextTokenizer,
    texts: Mapping[str, Text],
    layers: tuple[int, ...],
    pad_id: int,
    longest: int | None = None,
    say: Say = lambda message: None,
) -> ComparedTexts:
    """Compares the runtime's token ids with transformers', then runs transformers' model.

    Args:
        texts: what each text is -> the text.
        longest: most tokens of a text that is run; of longer ones token ids alone are compared.
        say: called with a line now and then.

    Texts without any token are left out. Raises ExportError for the first text with other tokens.
    """
    names = list(texts)
    tokens = tokenizer(list(texts.values()))
    inputs = [reference.tokens(text) for text in texts.values()]
    for name, own, expected in zip(names, tokens, inputs, strict=True):
        check_tokens(name, texts[name], own, expected)
    most = max(own.ids.size for own in tokens) if longest is None else longest
    kept = [i for i, own in enumerate(tokens) if 0 < own.ids.size <= most]
    if not kept:
        raise ExportError("no text has a token that could be compared. Give others: --calibration.")
    tokens = [tokens[i] for i in kept]
    states = list(_run(reference, [inputs[i] for i in kept], layers, say))
    embeddings = [text.embedding for text in states if text.embedding is not None]
    return ComparedTexts(
        names=[names[i] for i in kept],
        lengths=np.array([own.ids.size for own in tokens], np.int64),
        batches=token_batches(tokens, pad_id),
        layers=[
            np.concatenate(parts) for parts in zip(*(text.layers for text in states), strict=True)
        ],
        embeddings=np.stack(embeddings) if embeddings else None,
    )


def _run(
    reference: ReferenceModel,
    inputs: Sequence[ReferenceTokens],
    layers: tuple[int, ...],
    say: Say,
) -> Iterator[ReferenceStates]:
    """Runs a text per core: threads that share a short one wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(count_cores(), "reference")
    said_s = time.perf_counter()
    try:
        states = pool.map(lambda tokens: reference.states(tokens, layers), inputs)
        for done, hidden in enumerate(states, 1):
            yield hidden
            if time.perf_counter() - said_s > SAY_EVERY_S:
                say(f"transformers: {done} of {len(inputs)} texts")
                said_s = time.perf_counter()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def check_tokens(name: str, text: Text, own: Tokens, reference: ReferenceTokens) -> None:
    """Raises ExportError if the runtime's tokens of a text are not those of transformers.

    Args:
        name: what the text is.
        own: as `TextTokenizer` makes them.
    """
    got, expected = own.ids.tolist(), reference["input_ids"]
    what = "token ids"
    if got == expected and "token_type_ids" in reference:
        got = [0] * own.num_first + [1] * (len(expected) - own.num_first)
        expected, what = reference["token_type_ids"], "token types"
    if got == expected:
        return
    pairs = zip(got, expected, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(expected)))
    raise ExportError(
        f"the runtime's {what} of a text are not those of transformers: {name}, "
        f"{text!r:.{SHOWN_CHARS}}. From token {at} on, got {got[at : at + SHOWN_IDS]} "
        f"({len(got)} in all), expected {expected[at : at + SHOWN_IDS]} ({len(expected)}). Its "
        "tokenizer does something that tokenizer.json does not say: look at its class and at "
        "tokenizer_config.json."
    )
