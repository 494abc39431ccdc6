"""The user's cache folder: for what takes long to make and can always be made again."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "BITHEADS_CACHE"


def make_cache_folder(name: str) -> Path | None:
    """A folder of that name in the cache, or None where there is to be none, or cannot be."""
    root = os.environ.get(VARIABLE)
    if root == "":
        return None
    try:
        if root is None:
            user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            folder = Path(user) / "bitheads" / name
        else:
            folder = Path(root) / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
