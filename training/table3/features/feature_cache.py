"""Hidden states of a task's texts, computed once per encoder and kept on disk while there is room.

    scratch/<key>/<part>.npy           float16 [tokens, layers, dim]
    scratch/<key>/<part>.offsets.npy   int64 [texts + 1]

A key is a hash of all that the values follow from. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitheads.engine.files.whole_file import sync_tree
from bitheads.engine.types import Text, TokenBatch
from bitheads.export.source.encoder import Encoder, HiddenStates
from bitheads.training.errors import TrainingError
from bitheads.training.multitask.config import Precision
from bitheads.training.multitask.task_batches import text_batches, text_tokenizer
from bitheads.training.table3.features.make_features import StoredLayers

Say = Callable[[str], None]
Encode = Callable[[Sequence[Text], Path, Callable[[int], None]], StoredLayers]
"""Computes some texts' layers into a file; calls the function with its bytes before it is made."""

AT_HAND = 2
"""Keys that are in use at a time: a task's, and that of the texts that codes' constants are of."""


class FeatureCache:
    """Stored layers by key; what was not used for longest makes room for others.

    Args:
        max_bytes: bytes of all features on disk. Those at hand stay even if they are larger.
    """

    def __init__(self, folder: Path, max_bytes: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._at_hand: deque[Path] = deque(maxlen=AT_HAND)

    def get(
        self,
        identity: Mapping[str, Any],
        texts: Mapping[str, Sequence[Text]],
        encode: Encode,
    ) -> dict[str, StoredLayers]:
        """Part -> its layers, from disk or encoded now.

        Args:
            identity: all that the values follow from, as JSON has it.
            texts: part -> its texts.

        Raises TrainingError if they cannot be written.
        """
        text = json.dumps(identity, sort_keys=True)
        folder = self._folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        try:
            if folder in self._at_hand:
                self._at_hand.remove(folder)
            self._at_hand.append(folder)
            if not folder.is_dir():
                self._fill(folder, texts, encode)
            os.utime(folder)
            layers, encoder_layers = json.loads((folder / "layers.json").read_text())
            return {
                part: StoredLayers(
                    np.load(folder / f"{part}.npy", mmap_mode="r"),
                    np.load(folder / f"{part}.offsets.npy"),
                    tuple(layers),
                    encoder_layers,
                )
                for part in texts
            }
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{folder}: cannot be written or read ({error}). Make room there, or delete it: "
                "features are computed again."
            ) from error

    def _fill(
        self,
        folder: Path,
        texts: Mapping[str, Sequence[Text]],
        encode: Encode,
    ) -> None:
        aside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            for part, some in texts.items():
                stored = encode(some, aside / f"{part}.npy", self._make_room)
                np.save(aside / f"{part}.offsets.npy", stored.offsets)
            (aside / "layers.json").write_text(json.dumps([stored.layers, stored.encoder_layers]))
            sync_tree(aside)  # or a crash might leave zeros under its name; the name may be lost
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _make_room(self, num_bytes: int) -> None:
        """Removes what was not used for longest, until so much fits."""
        sizes = {
            folder: sum(path.stat().st_size for path in folder.iterdir())
            for folder in self._folder.iterdir()
            if folder.is_dir()
        }
        total = sum(sizes.values()) + num_bytes
        for folder in sorted(sizes, key=lambda folder: folder.stat().st_mtime):
            is_partial = folder.name.startswith(".")
            if total > self._max_bytes and folder not in self._at_hand and not is_partial:
                shutil.rmtree(folder)
                total -= sizes[folder]


def layers_of(
    module: HiddenStates, batch: TokenBatch, device: torch.device, precision: Precision
) -> torch.Tensor:
    """An encoder's hidden states of a batch, [rows, tokens, layers, dim], on the device.

    Args:
        module: on the device, in evaluation.
    """
    inputs = [torch.from_numpy(getattr(batch, name)).to(device) for name in module.input_names]
    is_bf16 = precision is Precision.BF16
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
        return torch.stack(module(*inputs), dim=2)


class LayerEncoder:
    """Computes hidden states of texts.

    Args:
        layers: hidden-state indices that are kept, ascending.
        max_length: tokens that are read of a text; None for the encoder's limit.

    Raises TrainingError for a length the encoder cannot read.
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: tuple[int, ...],
        max_length: int | None,
        precision: Precision,
        device: torch.device,
        say: Say = lambda message: None,
    ) -> None:
        encoder.model.set_attn_implementation("sdpa")  # loaded in its plain form, which is slower
        self._encoder, self._device, self._say = encoder, device, say
        self._precision = precision
        self._module = HiddenStates(encoder, layers).to(device).eval()
        self._tokenizer = text_tokenizer(encoder, max_length)

    def __call__(
        self, texts: Sequence[Text], path: Path, make_room: Callable[[int], None]
    ) -> StoredLayers:
        """The layers of every text's real tokens, also written to the file.

        Args:
            make_room: called with the bytes that the file will have.

        Raises TrainingError for values that are not finite, as float16 has them.
        """
        batches = text_batches(texts, self._tokenizer, self._encoder.pad_id)
        counts = np.zeros(len(texts), np.int64)
        for tokens, rows in batches:
            counts[rows] = tokens.lengths
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        layers = self._module.layers
        shape = (int(offsets[-1]), len(layers), self._encoder.dim)
        make_room(2 * math.prod(shape))
        values = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        _fill(path, values.offset)
        for tokens, rows in batches:
            hidden = layers_of(self._module, tokens, self._device, self._precision).half()
            if not torch.isfinite(hidden[torch.from_numpy(tokens.attention_mask).bool()]).all():
                raise TrainingError(
                    f"encoder {self._encoder.name}: hidden states leave float16. Its weights are "
                    "damaged, or its training diverged."
                )
            array = hidden.cpu().numpy()
            for row, text in enumerate(rows):
                values[offsets[text] : offsets[text + 1]] = array[row, : tokens.lengths[row]]
        values.flush()
        return StoredLayers(values, offsets, layers, self._encoder.num_layers)


def _fill(path: Path, start: int) -> None:
    """Has the disk hold all of a file that is a hole from `start` on: a full disk is an error now,
    and not a bus error when the file is written to as memory."""
    size = path.stat().st_size
    with path.open("rb+", buffering=0) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        zeros = bytes(1 << 20)  # macOS has no such call
        file.seek(start)
        while start < size:
            start += file.write(zeros[: size - start])
