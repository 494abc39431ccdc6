"""The word-sense probe on an encoder's layers: floats, signs and centred signs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitheads.engine.batching import cut_batches, pad_batch
from bitheads.engine.cpu_encoder import CPU_BATCH_TOKENS, CPU_CALL_TOKENS
from bitheads.engine.texts.tokenize import Tokens
from bitheads.export.source.encoder import Encoder, HiddenStates
from bitheads.export.texts import read_texts
from bitheads.training.data.batches import seed_of
from bitheads.training.data.tasks import TABLES, file_of, quotes_option
from bitheads.training.errors import ConfigError
from bitheads.training.table3.cells.new_heads import CALIBRATION_TEXTS
from bitheads.training.table3.cells.word_senses import (
    SensedWord,
    baseline,
    nearest_sense,
    read_words,
)
from bitheads.training.table3.features.feature_cache import layers_of
from bitheads.training.table3.work import Work

FORMS = ("float", "sign", "centred")


def probe(work: Work, encoder: Encoder) -> dict[str, Any]:
    """F1 of each form on dev and test, from the layer that is best on dev with floats.

    Raises InputError for unsound data.
    """
    config = work.config.wsd
    assert config.task is not None, "there is a task to probe"
    words = read_all(work)
    layers = chosen_layers(work)
    centers = _centers(work, encoder, layers)
    features = {
        part: word_features(work, encoder, some, layers, centers) for part, some in words.items()
    }

    def f1(form: str, part: str, layer: int) -> float:
        train, some = (features[name][form][:, layer] for name in ("train", part))
        return nearest_sense(words["train"], train, words[part], some)

    dev = {layer: f1("float", "dev", i) for i, layer in enumerate(layers)}
    best = max(layers, key=lambda layer: dev[layer])
    return {
        "layer": best,
        "dev_by_layer": {str(layer): value for layer, value in dev.items()},
        "most_frequent": {part: baseline(words["train"], words[part]) for part in ("dev", "test")},
        **{
            part: {form: f1(form, part, layers.index(best)) for form in FORMS}
            for part in ("dev", "test")
        },
    }


def chosen_layers(work: Work) -> tuple[int, ...]:
    """Hidden states that are probed. Raises ConfigError for those that the encoder lacks."""
    count, wanted = work.loaded.num_layers, work.config.wsd.layers
    if any(not 0 <= layer <= count for layer in wanted):
        raise ConfigError(f"wsd.layers: got {list(wanted)}, expected numbers from 0 to {count}.")
    return wanted or tuple(range(count + 1))


def read_all(work: Work) -> dict[str, list[SensedWord]]:
    """The words of train, dev and test, as many rows as the configuration says."""
    config, grid = work.config.wsd, work.config
    limits = {
        "train": config.max_train_rows,
        "dev": grid.max_dev_rows,
        "test": grid.max_test_rows,
    }
    words = {}
    for part, limit in limits.items():
        task = str(config.task)
        path = file_of(work.data / task, part, TABLES)
        some = read_words(path, (grid.quotes or {}).get(task), quotes_option(task))
        random = np.random.default_rng(seed_of(grid.seeds[0], f"{task} {part}.tsv"))
        words[part] = [some[row] for row in np.sort(random.permutation(len(some))[:limit])]
    return words


def word_features(
    work: Work,
    encoder: Encoder,
    words: Sequence[SensedWord],
    layers: tuple[int, ...],
    centers: torch.Tensor,
) -> dict[str, NDArray[np.float32]]:
    """Form -> the mean over each word's tokens of what is stored of them.

    float32 [words, layers, dim]. Sentences are read up to the encoder's limit. A word beyond it has
    the features of its sentence's first token.

    Args:
        centers: float32 [layers, dim], thresholds of the centred signs.
    """
    encoded = encoder.tokenizer(
        [word.text for word in words],
        truncation=True,
        max_length=encoder.max_length,
        return_offsets_mapping=True,
    )
    masks = [
        _tokens_of(word, offsets)
        for word, offsets in zip(words, encoded["offset_mapping"], strict=True)
    ]
    features = {form: np.empty((len(words), *centers.shape), np.float32) for form in FORMS}
    for rows, hidden in _hidden_states(work, encoder, encoded["input_ids"], layers):
        weights = torch.zeros(hidden.shape[:2])
        for place, row in enumerate(rows):
            weights[place, : len(masks[row])] = torch.from_numpy(masks[row])
        weights /= weights.sum(dim=1, keepdim=True)
        stored = {
            "float": hidden,
            "sign": torch.where(hidden > 0, 1.0, -1.0),
            "centred": torch.where(hidden > centers.to(hidden.device), 1.0, -1.0),
        }
        for form, values in stored.items():
            pooled = torch.einsum("ns,nslk->nlk", weights.to(hidden.device), values)
            features[form][rows] = pooled.cpu().numpy()
    return features


def _centers(work: Work, encoder: Encoder, layers: tuple[int, ...]) -> torch.Tensor:
    """Means of the features of texts that are none of the probe's, float32 [layers, dim]."""
    encoded = encoder.tokenizer(
        read_texts(None)[:CALIBRATION_TEXTS], truncation=True, max_length=encoder.max_length
    )
    ids = encoded["input_ids"]
    total = torch.zeros((len(layers), encoder.dim), dtype=torch.float64)
    for rows, hidden in _hidden_states(work, encoder, ids, layers):
        for place, row in enumerate(rows):
            total += hidden[place, : len(ids[row])].double().sum(dim=0).cpu()
    return (total / sum(map(len, ids))).float()


def _hidden_states(
    work: Work, encoder: Encoder, ids: Sequence[Sequence[int]], layers: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    """Rows of some texts, and float32 [rows, tokens, layers, dim]; padding is at the end."""
    device = work.device
    encoder.model.set_attn_implementation("sdpa")
    module = HiddenStates(encoder, layers).to(device).eval()
    tokens = [Tokens(np.array(text, np.int32), len(text), truncated=False) for text in ids]
    lengths = np.array([text.ids.size for text in tokens], np.int64)
    for rows in cut_batches(lengths, CPU_BATCH_TOKENS, CPU_CALL_TOKENS):
        batch = pad_batch([tokens[row] for row in rows], encoder.pad_id)
        yield rows, layers_of(module, batch, device, work.config.precision).float()


def _tokens_of(word: SensedWord, offsets: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """1 for the tokens that have characters of the word, else 0: float32 [tokens]."""
    mask = np.array(
        [start < word.end and end > word.start and end > start for start, end in offsets],
        np.float32,
    )
    if not mask.any():
        mask[0] = 1
    return mask
