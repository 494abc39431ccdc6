"""The Hugging Face hub: the files of a model, all of one commit, in huggingface_hub's own cache."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError
from tqdm import tqdm

from bitheads.export.config import split_revision
from bitheads.export.errors import ExportError
from bitheads.export.source.size_checks import check_room

TIMEOUT_S = 10.0
"""Time to wait for an answer of the hub, in seconds, as huggingface_hub does for files."""

FIRST = ("modules.json", "config.json", "adapter_config.json")
"""Files that say where the others are, and what they are."""


class _NoBar(tqdm):  # type: ignore[misc]
    """A progress bar that is none, for files of a few kilobytes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})


@dataclass(frozen=True)
class Snapshot:
    """A model of the hub at one commit.

    Attributes:
        folder: in the cache; has what was fetched.
        files: its files and their sizes in bytes, fetched or not; where the hub cannot be reached,
            those of the cache.
    """

    id: str
    commit: str
    folder: Path
    files: Mapping[str, int]

    def fetch(self, names: Iterable[str], show_progress: bool = False) -> None:
        """Fetches files that are not in the cache yet.

        Raises ExportError if the cache's disk has no room for them; OSError, or errors of
        huggingface_hub, if they cannot be had.
        """
        missing = [name for name in names if not (self.folder / name).exists()]
        if not missing:
            return
        cache = Path(constants.HF_HUB_CACHE)
        check_room(
            f"encoder {self.id!r}: its files",
            sum(self.files[name] for name in missing),
            cache,
            "Free some, or name another disk by HF_HOME.",
        )
        _fetch(self.id, self.commit, missing, None if show_progress else _NoBar)


def find_snapshot(name: str) -> Snapshot:
    """A model by `ORG/NAME` or `ORG/NAME@REVISION`, with the files in FIRST.

    All that is fetched later is of the commit that the revision is now. Where the hub cannot be
    reached, or HF_HUB_OFFLINE is set, it is what the cache has.

    Raises ExportError if there is no such revision, or if the hub refuses this user; OSError,
    ValueError, or errors of huggingface_hub, if nothing can be had for other reasons.
    """
    repository, revision = split_revision(name)
    try:
        info = HfApi().model_info(
            repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S
        )
    except RevisionNotFoundError as error:
        raise ExportError(
            f"encoder {repository!r}: the hub has no revision {revision!r} of it. Expected a "
            f"branch, a tag or a commit, as at {constants.ENDPOINT}/{repository}/commits/main"
        ) from error
    except Exception as error:  # whatever the hub's HTTP library raises where there is no hub
        return _cached(repository, revision, error)
    try:
        # By the revision's name, which the cache then knows, too.
        folder = Path(_fetch(repository, revision, FIRST, _NoBar))
    except GatedRepoError as error:
        raise ExportError(
            f"encoder {repository!r}: the hub gives it only to those whom its owners let. Ask for "
            f"access at {constants.ENDPOINT}/{repository}, then set HF_TOKEN to your token."
        ) from error
    if folder.name != info.sha:  # a branch that moved in this moment
        return find_snapshot(name)
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    return Snapshot(repository, folder.name, folder, files)


def _cached(repository: str, revision: str | None, reason: Exception) -> Snapshot:
    """What the cache has of a model. Raises `reason` if there is nothing."""
    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=[*FIRST], local_files_only=True
            )
        )
    except Exception:
        raise reason from None
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    return Snapshot(repository, folder.name, folder, files)


def _fetch(repository: str, revision: str | None, names: Iterable[str], bar: Any) -> str:
    found: str = snapshot_download(
        repository,
        revision=revision,
        allow_patterns=[glob.escape(name) for name in names],
        etag_timeout=TIMEOUT_S,
        tqdm_class=bar,
    )
    return found
