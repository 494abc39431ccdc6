"""Which files of a checkpoint are its weights, and what to do about those that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn

from bitheads.export.errors import ExportError
from bitheads.export.source.shell import in_python

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In the order in which transformers looks for them, each also in shards with an index."""

VARIANTS = ("model.*.safetensors", "pytorch_model.*.bin")
"""Weights that transformers reads only if it is told their variant, such as fp16."""

FOREIGN = {
    "ONNX": "*.onnx",
    "OpenVINO": "*openvino*.xml",
    "GGUF": "*.gguf",
    "TensorFlow": "*.h5",
    "Flax": "*.msgpack",
}
"""What has weights in a form that nothing here reads -> its files."""

LFS = b"version https://git-lfs"
"""How a file begins that git left in place of a large one."""


def check_weight_files(name: str, files: Mapping[str, int]) -> None:
    """Raises ExportError if there are weights, but none that transformers reads unasked.

    Args:
        files: of the checkpoint, by path.
    """
    if any(weights in files or _index(weights) in files for weights in WEIGHTS):
        return
    for pattern in VARIANTS:
        for path in sorted(files):
            # Shards have names like it: model-00001-of-00002.safetensors.
            if fnmatch(path, pattern):
                variant = path.split(".")[-2].partition("-")[0]
                _refuse(
                    name,
                    f"its weights are there as {path} alone, which transformers reads only when "
                    f"asked for the variant {variant!r}. Save them under the usual name, with the "
                    f"tokenizer beside them: {_save_command(name, f', variant={variant!r}')}",
                )
    for form, pattern in FOREIGN.items():
        for path in sorted(files):
            if fnmatch(path, pattern):
                _refuse(
                    name,
                    f"its weights are there for {form} alone ({path}), expected "
                    f"{WEIGHTS[0]}: bitheads makes a graph of its own, of transformers' model. "
                    "Take the model that this one was converted from.",
                )


def choose_weights(name: str, folder: Path, files: Mapping[str, int]) -> list[str]:
    """The names of the files that transformers will read, of those of a checkpoint.

    Raises ExportError if there are none, or some are missing.
    """
    for weights in WEIGHTS:
        if weights in files:
            return [weights]
        if _index(weights) in files:
            chosen = _shards(name, folder / _index(weights))
            if missing := [shard for shard in chosen if shard not in files]:
                _refuse(
                    name,
                    f"{len(missing)} of the {len(chosen)} files of its weights are missing, such "
                    f"as {missing[0]}. Get the whole checkpoint.",
                )
            return chosen
    raise ExportError(
        f"encoder {name!r}: there are no weights beside config.json. Expected {WEIGHTS[0]}, or its "
        f"shards with {_index(WEIGHTS[0])}; offline, they may not have been fetched yet."
    )


def check_pointers(name: str, folder: Path, chosen: Iterable[str]) -> None:
    """Raises ExportError if a file of weights is what git leaves in its place."""
    for weights in chosen:
        with (folder / weights).open("rb") as file:
            if file.read(len(LFS)) == LFS:
                _refuse(
                    name,
                    f"{weights} is a pointer of Git LFS, not the weights. Type: git lfs pull",
                )


def _index(weights: str) -> str:
    return f"{weights}.index.json"


def _shards(name: str, path: Path) -> list[str]:
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(place) for place in places})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _refuse(name, f"{path.name} cannot be read ({error!r}). Get the whole checkpoint.")


def _save_command(source: str, options: str = "") -> str:
    return in_python(
        "from transformers import AutoModel, AutoTokenizer; "
        f"AutoModel.from_pretrained({source!r}{options}).save_pretrained('whole'); "
        f"AutoTokenizer.from_pretrained({source!r}).save_pretrained('whole')"
    )


def _refuse(name: str, message: str) -> NoReturn:
    raise ExportError(f"encoder {name!r}: {message}")
