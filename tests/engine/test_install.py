"""What to type to install what is missing: true in a clone, and of what an index gave."""

from __future__ import annotations

import shlex
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from bitheads.engine.process import install
from bitheads.engine.process.install import how_to_install

ROOT = Path(__file__).parent.parent.parent


def test_a_clone_is_installed_from_its_folder() -> None:
    """Which these tests run in."""
    assert how_to_install() == f"pip install -e {shlex.quote(str(ROOT))}"
    assert how_to_install("gpu") == f"pip install -e '{ROOT}[gpu]'"


@pytest.mark.parametrize("origin", ["lib/python/site-packages/bitheads/__init__.py", None])
def test_what_an_index_gave_is_installed_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: str | None
) -> None:
    file = None if origin is None else str(tmp_path / origin)
    spec = ModuleSpec("bitheads", None, origin=file)
    monkeypatch.setattr(install, "find_spec", lambda name: spec)
    assert how_to_install() == "pip install bitheads"
    assert how_to_install("gpu") == "pip install 'bitheads[gpu]'"


def test_a_folder_with_blanks_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "a clone's"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    spec = ModuleSpec("bitheads", None, origin=str(folder / "bitheads/__init__.py"))
    monkeypatch.setattr(install, "find_spec", lambda name: spec)
    assert shlex.split(how_to_install("gpu")) == ["pip", "install", "-e", f"{folder}[gpu]"]
