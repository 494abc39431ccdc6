"""The user's cache folder: for what takes long to make and can always be made again.

What is read from it is believed, so nobody else may have written it: as ssh does with its keys, a
folder is used only if all that lead to it belong to this user or to root, and nobody else can put
another in their place. What we make there is for this user alone.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

VARIABLE = "BITHEADS_CACHE"

FILE_MODE = 0o600
"""Mode of files in the cache."""

_FOLDER_MODE = 0o700

_told: set[str] = set()
"""Warnings that were given: each is given once per process."""

logger = logging.getLogger("bitheads")


def make_cache_folder(name: str) -> Path | None:
    """A folder of that name in the cache, or None where there is to be none, or cannot be.

    One that others may write to is not used, and that is warned of, once.
    """
    root = os.environ.get(VARIABLE)
    if root == "":
        return None
    try:
        if root is None:
            user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            folder = Path(user) / "bitheads" / name
        else:
            folder = Path(root) / name
        folder = folder.absolute()
        for missing in (*reversed(folder.parents), folder):
            if not missing.exists():
                missing.mkdir(_FOLDER_MODE, exist_ok=True)
        fault = next(filter(None, (_fault(*place) for place in _places(folder))), None)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    if fault is not None:
        _tell(
            f"no cache: {fault}, so that others may put there what is not ours. Set {VARIABLE} to "
            "a folder of your own in one that only you may write to, or to nothing for no cache."
        )
        return None
    return folder if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) else None


def open_own(path: Path) -> BinaryIO:
    """Opens a file of the cache to read it: one that nobody else may have written.

    Raises OSError, PermissionError for another user's or one that others may write to.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        is_own = stat.S_ISREG(found.st_mode) and found.st_uid in (os.geteuid(), 0)
        if not is_own or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            fault = (
                f"{path} belongs to user {found.st_uid}, mode {stat.filemode(found.st_mode)}, "
                "expected a file that only this user may write to"
            )
            _tell(f"not read from the cache: {fault}. It is made again.")
            raise PermissionError(fault)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def _places(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every folder and every link on the way to a folder, that itself included."""
    for place in (*reversed(folder.parents), folder):
        found = place.lstat()
        yield place, found
        if stat.S_ISLNK(found.st_mode):
            yield from _places(place.parent / place.readlink())


def _fault(place: Path, found: os.stat_result) -> str | None:
    """Why others may have put something there, None if they cannot."""
    if found.st_uid not in (os.geteuid(), 0):
        return f"{place} belongs to user {found.st_uid}, expected {os.geteuid()} or root"
    mode = found.st_mode
    if stat.S_ISLNK(mode) or mode & stat.S_ISVTX:
        return None
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_private(found.st_gid)):
        return f"{place} may be written to by others ({stat.filemode(mode)})"
    return None


def _is_private(group: int) -> bool:
    """Whether it is the group that many systems make for each user, with nobody else in it.

    Those systems let such groups write to all that their users make.
    """
    try:
        user, members = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:  # a user or a group without a name
        return False
    return members.gr_name == user and set(members.gr_mem) <= {user}


def _tell(fault: str) -> None:
    if fault not in _told:
        _told.add(fault)
        logger.warning("%s", fault)
