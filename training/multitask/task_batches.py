"""Padded batches of a task's examples, tokenized as the engine tokenizes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitheads.engine.batching import cut_batches, pad_batch
from bitheads.engine.cpu_encoder import CPU_BATCH_TOKENS, CPU_CALL_TOKENS
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import Text, TokenBatch
from bitheads.export.config import MIN_LENGTH
from bitheads.export.source.encoder import Encoder
from bitheads.training.data.batches import EndlessBatches
from bitheads.training.data.tasks import Examples, Task
from bitheads.training.errors import TrainingError


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """A batch for one encoder call.

    Attributes:
        label_ids: int64 [rows], indices of the task's classes.
        examples: int64 [rows], which of the task's examples they are.
    """

    tokens: TokenBatch
    label_ids: NDArray[np.int64]
    examples: NDArray[np.int64]


def text_tokenizer(encoder: Encoder, max_length: int | None) -> TextTokenizer:
    """The encoder's tokenizer as bundles have it: texts are cut as they will be when served.

    Raises TrainingError for a length the encoder cannot read.
    """
    limit = encoder.max_length if max_length is None else max_length
    if not MIN_LENGTH <= limit <= encoder.max_length:
        raise TrainingError(
            f"max_length: got {limit}, expected {MIN_LENGTH} to {encoder.max_length}, the "
            "encoder's limit."
        )
    tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tokenizer.save(str(path))
        return TextTokenizer(path, limit, encoder.vocabulary, encoder.token_types)


class TrainBatches:
    """The batches of a task's training rows, without end, tokenized when they are asked for."""

    def __init__(
        self, task: Task, tokenizer: TextTokenizer, pad_id: int, batch_size: int, seed: int
    ) -> None:
        self._examples = task.train
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        # Characters are near enough to sort by, so that nothing is tokenized before training.
        lengths = np.array([_num_chars(text) for text in task.train.texts], np.int64)
        self._rows = EndlessBatches(task.name, lengths, batch_size, seed)

    def __getitem__(self, number: int) -> LabelledBatch:
        rows = self._rows[number]
        tokens = self._tokenizer([self._examples.texts[row] for row in rows])
        return LabelledBatch(pad_batch(tokens, self._pad_id), self._examples.label_ids[rows], rows)


def text_batches(
    texts: Sequence[Text], tokenizer: TextTokenizer, pad_id: int
) -> list[tuple[TokenBatch, NDArray[np.int64]]]:
    """Every text once, in the batches that cost least: each batch, and int64 [rows], its texts."""
    tokens = tokenizer(texts)
    lengths = np.array([text.ids.size for text in tokens], np.int64)
    return [
        (pad_batch([tokens[row] for row in rows], pad_id), rows)
        for rows in cut_batches(lengths, CPU_BATCH_TOKENS, CPU_CALL_TOKENS)
    ]


def all_batches(examples: Examples, tokenizer: TextTokenizer, pad_id: int) -> list[LabelledBatch]:
    """Every row once, in the batches that cost least; for evaluation."""
    return [
        LabelledBatch(tokens, examples.label_ids[rows], rows)
        for tokens, rows in text_batches(examples.texts, tokenizer, pad_id)
    ]


def _num_chars(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))
