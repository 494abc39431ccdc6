"""The probe reads of a word what a store would have of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bitheads.export.source.encoder import HiddenStates, load_encoder
from bitheads.training.multitask.config import Precision
from bitheads.training.table3.cells.word_sense_probe import word_features
from bitheads.training.table3.cells.word_senses import SensedWord


def test_signs_are_of_tokens(tiny_encoder: Callable[[str], Path]) -> None:
    """A word has the mean over its pieces, too, whatever the grid's max_length."""
    encoder = load_encoder(str(tiny_encoder("bert")))
    text = "They sat down on the unfathomable riverbank."
    word = SensedWord("s", text, text.index("unf"), text.index("bank") + 4, ("x", "NOUN"))
    config = SimpleNamespace(precision=Precision.FP32, max_length=5)
    work: Any = SimpleNamespace(device=torch.device("cpu"), config=config)
    centers = torch.full((2, encoder.dim), 0.25)
    got = word_features(work, encoder, [word], (1, 3), centers)

    inputs = encoder.tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    with torch.inference_mode():
        ids = inputs.input_ids
        hidden = HiddenStates(encoder, (1, 3)).eval()(ids, inputs.attention_mask, 0 * ids)
    pieces = [
        row
        for row, (start, end) in enumerate(inputs.offset_mapping[0].tolist())
        if word.start <= start < end <= word.end
    ]
    assert len(pieces) > 2
    for place, layer in enumerate(hidden):
        tokens = layer[0, pieces].numpy()
        expected = {
            "float": tokens,
            "sign": np.where(tokens > 0, 1.0, -1.0),
            "centred": np.where(tokens > 0.25, 1.0, -1.0),
        }
        for form, values in expected.items():
            np.testing.assert_allclose(got[form][0, place], values.mean(axis=0), atol=1e-4)
