"""The folder that multi-task training writes: an encoder as transformers reads it, and the rest.

    config.json, model.safetensors, tokenizer files   for `bitheads build --encoder`
    heads.safetensors      `<task>/<parameter>`
    optimizer.safetensors  `<step|exp_avg|exp_avg_sq>/<parameter>`; in checkpoints alone
    multitask.json         what was trained on what, how far, and the SHA-256 of the files above

This module owns the format. No pickle, and nothing is ever overwritten: a folder is written
aside, flushed to disk and renamed, so that whatever happens the last one is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bitheads.engine.bundle import Artifact
from bitheads.engine.files.whole_file import make_folder, rename, sync, sync_tree
from bitheads.training.errors import CheckpointError, OtherRunError
from bitheads.training.multitask.model import MultitaskModel

FORMAT_VERSION = 1
RECORD = "multitask.json"
HEADS, OPTIMIZER = "heads.safetensors", "optimizer.safetensors"
KEPT = 2
"""Checkpoints that are kept: the last one, and one in case its disk damages it."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        record: the content of `multitask.json`.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.record["step"])


def write_checkpoint(
    folder: Path,
    record: dict[str, Any],
    model: MultitaskModel,
    optimizer: torch.optim.Optimizer | None,
) -> Checkpoint:
    """Writes the folder, whole or not at all.

    Args:
        record: what `multitask.json` shall hold beside the format version and the hashes.
        optimizer: None to leave it out.

    Raises CheckpointError if weights are not finite or the folder cannot be written.
    """
    for name, parameter in model.parameters().items():
        if not torch.isfinite(parameter).all():
            raise CheckpointError(f"{folder}: {name} is not finite, so nothing was written.")
    aside = folder.with_name(f".{folder.name}.partial")
    with _writing(folder):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            make_folder(folder.parent)
            aside.mkdir()
            record = _fill(aside, record, model, optimizer)
            shutil.rmtree(folder, ignore_errors=True)  # damaged, or a killed run's last act
            rename(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Checkpoint(folder, record)


def publish(source: Path, output: Path) -> None:
    """Moves a written folder's files into `output`, which may have others; the record comes last.

    Raises CheckpointError.
    """
    with _writing(output):
        for path in source.iterdir():
            if path.name != RECORD:
                path.replace(output / path.name)
        sync(output)
        rename(source / RECORD, output / RECORD)
        source.rmdir()


def remove_old(folder: Path) -> None:
    """Removes all checkpoints but the last ones, and what a killed run left half done."""
    for path in [*folder.glob(".*"), *_checkpoints(folder)[KEPT:]]:
        shutil.rmtree(path, ignore_errors=True)


def last_checkpoint(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The last whole one; damaged ones are passed over and named. None if there never was one.

    Raises OtherRunError if all are damaged, or of another format version.
    """
    errors = []
    for path in _checkpoints(folder):
        try:
            return Checkpoint(path, read_record(path))
        except CheckpointError as error:
            errors.append(str(error))
            say(f"passed over: {error}")
    if errors:
        raise OtherRunError(f"{folder}: no checkpoint is whole. Start over with --force.")
    return None


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `multitask.json`, if all files have the hashes that it names.

    Raises OtherRunError.
    """
    path = folder / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = record["format_version"]
        if version != FORMAT_VERSION:
            raise OtherRunError(
                f"{path}: got format version {version}, expected {FORMAT_VERSION}. Install the "
                "version of bitheads that wrote it, or start over with --force."
            )
        for name, sha256 in record["files"].items():
            if Artifact.of(folder / name).sha256 != sha256:
                raise OtherRunError(
                    f"{folder / name}: is not what was written. Remove the folder, or copy it "
                    "again."
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OtherRunError(
            f"{path}: cannot be read ({error!r}). Remove the folder, or copy it again."
        ) from error
    return record


def restore(
    checkpoint: Checkpoint, model: MultitaskModel, optimizer: torch.optim.Optimizer
) -> None:
    """Puts back the heads and the optimizer; the encoder is loaded from the folder before.

    Copies into the tensors that are there: sums may depend on how memory is aligned.
    """
    weights = load_file(checkpoint.folder / HEADS)
    with torch.no_grad():
        for name, parameter in model.head_parameters().items():
            parameter.copy_(weights[name.removeprefix("head/")])
    moments = load_file(checkpoint.folder / OPTIMIZER)
    for name, parameter in model.parameters().items():
        if f"exp_avg/{name}" in moments:
            optimizer.state[parameter] = {
                moment: moments[f"{moment}/{name}"].to(parameter.device, copy=True)
                for moment in MOMENTS
            }


def differences(got: Any, expected: Any, name: str = "") -> list[str]:
    """The names at which two JSON values differ, with both values."""
    if isinstance(got, dict) and isinstance(expected, dict):
        return [
            line
            for key in sorted({*got, *expected})
            for line in differences(got.get(key), expected.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if got == expected else [f"{name} (got {got!r}, the checkpoint has {expected!r})"]


def _fill(
    folder: Path,
    record: dict[str, Any],
    model: MultitaskModel,
    optimizer: torch.optim.Optimizer | None,
) -> dict[str, Any]:
    model.encoder.model.save_pretrained(folder)
    model.encoder.tokenizer.save_pretrained(folder)
    save_file(
        {
            name.removeprefix("head/"): parameter.detach().cpu()
            for name, parameter in model.head_parameters().items()
        },
        folder / HEADS,
    )
    if optimizer is not None:
        save_file(
            {
                f"{moment}/{name}": optimizer.state[parameter][moment].cpu()
                for name, parameter in model.parameters().items()
                if parameter in optimizer.state  # not so of layers above those that heads read
                for moment in MOMENTS
            },
            folder / OPTIMIZER,
        )
    for path in folder.iterdir():  # safetensors lets nobody else read its files
        shutil.copymode(folder / "config.json", path)
    files = {path.name: Artifact.of(path).sha256 for path in sorted(folder.iterdir())}
    record = {"format_version": FORMAT_VERSION, **record, "files": files}
    (folder / RECORD).write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    sync_tree(folder)
    return record


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, the last one first."""
    return sorted(folder.glob("step-*"), reverse=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the OS, of safetensors; the tokenizers library raises the bare
        raise CheckpointError(f"{folder}: cannot be written ({error}). Make room there.") from error
