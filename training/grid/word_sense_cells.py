"""The word-sense probe on an encoder's layers: floats, signs and centred signs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.batching import cut_batches, pad_batch
from engine.encoder import CPU_BATCH_TOKENS, CPU_CALL_TOKENS
from engine.tokenize import Tokens
from export.encoder import Encoder, HiddenStates
from training.batches import seed_of
from training.grid.work import Work
from training.multitask_config import Precision
from training.word_senses import SensedWord, baseline, nearest_sense, read_words

FORMS = ("float", "sign", "centred")


def probe(work: Work, encoder: Encoder) -> dict[str, Any]:
    """F1 of each form on dev and test, from the layer that is best on dev with floats.

    Raises InputError for unsound data.
    """
    config = work.config.wsd
    assert config.task is not None, "there is a task to probe"
    words = read_all(work)
    layers = config.layers or tuple(range(encoder.num_layers + 1))
    features = {part: word_features(work, encoder, some, layers) for part, some in words.items()}
    center = features["train"].mean(axis=0)
    forms = {
        "float": features,
        "sign": {part: _signs(array) for part, array in features.items()},
        "centred": {part: _signs(array - center) for part, array in features.items()},
    }

    def f1(form: str, part: str, layer: int) -> float:
        chosen = forms[form]
        return nearest_sense(
            words["train"], chosen["train"][:, layer], words[part], chosen[part][:, layer]
        )

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


def read_all(work: Work) -> dict[str, list[SensedWord]]:
    """train, dev and test, as many rows as the configuration says."""
    config, grid = work.config.wsd, work.config
    limits = {
        "train": config.max_train_rows,
        "dev": grid.max_dev_rows,
        "test": grid.max_test_rows,
    }
    words = {}
    for part, limit in limits.items():
        path: Path = work.data / str(config.task) / f"{part}.tsv"
        some = read_words(path)
        random = np.random.default_rng(seed_of(grid.seeds[0], f"{config.task} {path.name}"))
        words[part] = [some[row] for row in np.sort(random.permutation(len(some))[:limit])]
    return words


def word_features(
    work: Work, encoder: Encoder, words: Sequence[SensedWord], layers: tuple[int, ...]
) -> NDArray[np.float32]:
    """The mean over each word's tokens, float32 [words, layers, dim].

    A word that is cut off has the features of its sentence's first token.
    """
    device = work.device
    encoder.model.set_attn_implementation("sdpa")
    module = HiddenStates(encoder, layers).to(device).eval()
    encoded = encoder.tokenizer(
        [word.text for word in words],
        truncation=True,
        max_length=work.config.max_length or encoder.max_length,
        return_offsets_mapping=True,
    )
    tokens = [
        Tokens(np.array(ids, np.int32), len(ids), truncated=False) for ids in encoded["input_ids"]
    ]
    masks = [
        _tokens_of(word, offsets)
        for word, offsets in zip(words, encoded["offset_mapping"], strict=True)
    ]
    lengths = np.array([text.ids.size for text in tokens], np.int64)
    features = np.empty((len(words), len(layers), encoder.dim), np.float32)
    for rows in cut_batches(lengths, CPU_BATCH_TOKENS, CPU_CALL_TOKENS):
        batch = pad_batch([tokens[row] for row in rows], encoder.pad_id)
        inputs = [torch.from_numpy(getattr(batch, name)).to(device) for name in module.input_names]
        weights = torch.zeros(batch.input_ids.shape)
        for place, row in enumerate(rows):
            weights[place, : lengths[row]] = torch.from_numpy(masks[row])
        weights /= weights.sum(dim=1, keepdim=True)
        is_bf16 = work.config.precision is Precision.BF16
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=is_bf16),
        ):
            hidden = torch.stack(module(*inputs), dim=2).float()
        pooled = torch.einsum("ns,nslk->nlk", weights.to(device), hidden)
        features[rows] = pooled.cpu().numpy()
    return features


def _tokens_of(word: SensedWord, offsets: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """1 for the tokens that have characters of the word, float32 [tokens]."""
    mask = np.array(
        [start < word.end and end > word.start and end > start for start, end in offsets],
        np.float32,
    )
    if not mask.any():
        mask[0] = 1
    return mask


def _signs(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(features > 0, np.float32(1), np.float32(-1))
