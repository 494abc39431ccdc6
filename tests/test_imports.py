"""Folders are the dependency graph: training -> export -> engine -> kernels, never back.

All are modules of `bitheads`: their bare names are anybody's.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ["training", "export", "engine", "kernels"]
"""Each may import itself and what comes after it."""

ENGINE_ROOMS = (
    "errors types progress",
    "process files",
    "features kinds",
    "texts",
    "predictions answer_parts bundle batching",
    "heads",
    "device",
    "sessions",
    "encoder cpu_encoder open_encoder text_batches text_chunks text_passes",
    "engine",
    "store",
    "jobs",
    "serve",
    "commands",
)
"""The folders and modules of engine/, from the ground up: each may import those of its own line and
of the lines above. ARCHITECTURE.md shows the same lines."""

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


def sources() -> list[Path]:
    """Every Python file of the repository."""
    found = [ROOT / "bitheads/__init__.py", ROOT / "bitheads/__main__.py", *modules()]
    for folder in ("benchmarks", "tests", "host", "examples"):
        found += sorted((ROOT / folder).rglob("*.py"))
    return found


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_no_module_imports_back(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    forbidden = {f"bitheads.{name}" for name in FOLDERS[: FOLDERS.index(folder)]}
    imported = imported_modules(path)
    assert not {".".join(name.split(".")[:2]) for name in imported} & forbidden
    forbidden = {"tests", "benchmarks", *(HEAVY if folder == "engine" else ())}
    assert not {name.split(".")[0] for name in imported} & forbidden


@pytest.mark.parametrize("path", sources(), ids=shown)
def test_nothing_imports_a_bare_name(path: Path) -> None:
    """Elsewhere `import engine` is a module of the user's, or of this clone's beside a wheel."""
    imported = {name.split(".")[0] for name in imported_modules(path)}
    assert not imported & set(FOLDERS)


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_what_reports_to_its_makers_is_imported_quietly(path: Path) -> None:
    """By bitheads.engine.process.quiet_import."""
    imported = {name.split(".")[0] for name in imported_modules(path)}
    assert not imported & {"nncf", "onnxruntime", "openvino", "openvino_tokenizers"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] in ("benchmarks", "bitheads") else ("bitheads", *parts))
    return name.removesuffix(".__init__")


def imports_by_module() -> dict[str, set[str]]:
    """Our modules and those of ours that each imports, anywhere in it, for types too."""
    paths = [path for path in sources() if path.relative_to(ROOT).parts[0] not in ("tests", "host")]
    known = {module_name(path) for path in paths} | {"bitheads.engine._kernels"}
    found = {}
    for path in paths:
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= (names & known) | ({node.module} if names - known else set())
        found[module_name(path)] = imported & known - {module_name(path)}
    return found


def test_no_imports_go_in_circles() -> None:
    graph = imports_by_module()
    assert "bitheads.engine.encoder" in graph["bitheads.engine.engine"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_rooms_of_the_engine_import_only_those_below() -> None:
    floors = {room: floor for floor, rooms in enumerate(ENGINE_ROOMS) for room in rooms.split()}
    floors["_kernels"] = -1  # the compiled library
    package = "bitheads.engine."
    upward = []
    for module, imported in imports_by_module().items():
        if not module.startswith(package):
            continue
        room = module.split(".")[2]
        upward += [
            f"{module} imports {other}"
            for other in sorted(imported)
            if other.startswith(package) and floors[other.split(".")[2]] > floors[room]
        ]
    assert not upward, "\n".join(upward)


def test_every_room_of_the_engine_has_its_place() -> None:
    found = {path.relative_to(ROOT / "engine").parts[0] for path in (ROOT / "engine").rglob("*.py")}
    listed = [room for rooms in ENGINE_ROOMS for room in rooms.split()]
    assert sorted(listed) == sorted({name.removesuffix(".py") for name in found} - {"__init__"})


def test_architecture_shows_the_rooms_of_the_engine() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = text.split("## The rooms of engine/")[1].split("```")[1]
    assert tuple(line.split("  ")[0] for line in block.strip().splitlines()) == ENGINE_ROOMS


def test_the_modules_were_found() -> None:
    found = {shown(path) for path in modules()}
    assert {"engine/engine.py", "engine/sessions/openvino.py", "export/build.py"} <= found


def test_kernels_cannot_be_imported() -> None:
    """transformers imports a distribution of that name, and would find this folder."""
    assert not list((ROOT / "kernels").rglob("__init__.py"))


def run_python(program: str) -> set[str]:
    """Modules that are loaded after a program ran: top-level ones, and our folders."""
    program += (
        "\nimport json, sys"
        "\nparts = [m.split('.') for m in sys.modules]"
        "\nfound = {p[1] if p[0] == 'bitheads' and p[1:] else p[0] for p in parts}"
        "\nprint(json.dumps(sorted(found)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_engine_loads_no_heavy_package(tiny_bundle: Path) -> None:
    """Nor does using it, with either backend."""
    program = f"""
import bitheads.engine.commands.predict
from bitheads import Engine
for backend in ("openvino", "onnxruntime"):
    loaded = Engine.load({str(tiny_bundle)!r}, backend=backend)
    assert len(loaded.predict(["text"])) == 0
"""
    loaded = run_python(program)
    assert not loaded & (HEAVY | {"export", "training"})
    assert "openvino" in loaded


def test_what_things_are_needs_neither_the_kernels_nor_a_backend() -> None:
    """Who only reads a bundle's manifest, a head or a store has no need of what runs them."""
    program = """
import sys
absent = ("bitheads.engine._kernels", "openvino", "onnxruntime", "pycuda", "tensorrt")
sys.modules.update(dict.fromkeys(absent))
import bitheads.engine.bundle, bitheads.engine.device.plan, bitheads.engine.errors
import bitheads.engine.features.packed, bitheads.engine.features.spec
import bitheads.engine.heads.head_file, bitheads.engine.store
import bitheads.engine.texts.tokenize, bitheads.engine.predictions
from bitheads import BitheadsError, FeatureSpec, PackedFeatures, Predictions
for name in absent:
    del sys.modules[name]
"""
    loaded = run_python(program)
    assert not loaded & (HEAVY | {"openvino", "onnxruntime", "pycuda", "tensorrt", "_kernels"})


def test_a_bundle_and_a_head_are_read_without_the_kernels(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    program = f"""
import sys
sys.modules["bitheads.engine._kernels"] = None
from pathlib import Path
import numpy as np
from bitheads import PositionPooling
from bitheads.engine.bundle import read_manifest, verify
from bitheads.engine.heads.head_file import FoldedHead, read_head, write_head
folder, path = Path({str(tiny_bundle)!r}), Path({str(tmp_path)!r}) / "yes-or-no.safetensors"
spec = read_manifest(folder).spec
verify(folder, read_manifest(folder))
dense, output = np.ones((3, spec.dim), np.float32), np.ones((2, 3), np.float32)
weights = (None, None, dense, dense[:, 0], output, output[:, 0])
head = FoldedHead("yes-or-no", ("yes", "no"), "single", PositionPooling.MEAN, spec, *weights)
write_head(head, path)
assert read_head(path).spec.id == spec.id
"""
    assert "openvino" not in run_python(program)


def test_importing_the_engine_loads_no_backend() -> None:
    assert not run_python("import bitheads.engine") & (HEAVY | {"openvino", "onnxruntime"})


def test_the_command_line_lists_its_commands_before_anything_is_loaded() -> None:
    program = """
from bitheads.__main__ import main
main(["--help"])
"""
    assert not run_python(program) & (HEAVY | {"numpy", "tokenizers", "engine", "export"})


def test_the_build_command_answers_before_torch_is_loaded() -> None:
    program = """
import contextlib, bitheads.export.build
with contextlib.suppress(SystemExit):
    bitheads.export.build.main(["--help"])
"""
    assert not run_python(program) & HEAVY
