"""What to type to install what is missing."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path


def how_to_install(extra: str = "") -> str:
    """The command that installs bitheads with an extra of its packages, such as "gpu".

    A clone, which pip was told to install where it lies, is installed again from its own folder: an
    index may have another version, or none.
    """
    spec = find_spec("bitheads")
    root = Path(spec.origin).parent.parent if spec is not None and spec.origin else Path("bitheads")
    is_clone = (root / "pyproject.toml").is_file()
    package = f"{root if is_clone else 'bitheads'}{f'[{extra}]' if extra else ''}"
    return f"pip install {'-e ' if is_clone else ''}{shlex.quote(package)}"
