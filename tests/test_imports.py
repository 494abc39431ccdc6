"""Folders are the dependency graph: training -> export -> engine -> kernels, never back."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ["training", "export", "engine", "kernels"]
"""Each may import itself and what comes after it."""

HEAVY = {"torch", "transformers", "onnx", "onnxscript", "sentence_transformers", "ml_dtypes"}


def imported_modules(path: Path) -> set[str]:
    """Full names of all modules a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            assert node.module is not None
            found.add(node.module)
    return found


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_no_module_imports_back(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    forbidden = set(FOLDERS[: FOLDERS.index(folder)]) | {"tests", "benchmarks"}
    if folder == "engine":
        forbidden |= HEAVY
    imported = {name.split(".")[0] for name in imported_modules(path)}
    assert not imported & forbidden


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_what_reports_to_its_makers_is_imported_quietly(path: Path) -> None:
    """By engine.quiet_import."""
    imported = {name.split(".")[0] for name in imported_modules(path)}
    assert not imported & {"nncf", "onnxruntime", "openvino", "openvino_tokenizers"}


def test_the_modules_were_found() -> None:
    found = {shown(path) for path in modules()}
    assert {"engine/engine.py", "engine/sessions/openvino.py", "export/build.py"} <= found


def test_kernels_cannot_be_imported() -> None:
    """transformers imports a distribution of that name, and would find this folder."""
    assert not list((ROOT / "kernels").rglob("__init__.py"))


def run_python(program: str) -> set[str]:
    """Top-level modules that are loaded after a program ran in a fresh interpreter."""
    program += (
        "\nimport json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_engine_loads_no_heavy_package(tiny_bundle: Path) -> None:
    """Nor does using it, with either backend."""
    program = f"""
import engine, engine.predict
for backend in ("openvino", "onnxruntime"):
    loaded = engine.Engine.load({str(tiny_bundle)!r}, backend=backend)
    assert len(loaded.predict(["text"])) == 0
"""
    loaded = run_python(program)
    assert not loaded & (HEAVY | {"export", "training"})
    assert "openvino" in loaded


def test_importing_the_engine_loads_no_backend() -> None:
    assert not run_python("import engine") & (HEAVY | {"openvino", "onnxruntime"})


def test_the_build_command_answers_before_torch_is_loaded() -> None:
    program = """
import contextlib, export.build
with contextlib.suppress(SystemExit):
    export.build.main(["--help"])
"""
    assert not run_python(program) & HEAVY
