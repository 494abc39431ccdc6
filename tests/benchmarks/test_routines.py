"""The list of benchmarks is the whole of it, and running one imports no other."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import ROOT, record
from benchmarks.__main__ import _parser
from benchmarks.options import command
from benchmarks.pages import tables
from benchmarks.routines import ROUTINES

FOLDER = ROOT / "benchmarks"
NAMES = [routine.name for routine in ROUTINES]


def imported_by(program: str) -> list[str]:
    """Our modules, and those of others that are slow to import."""
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    heavy = {"torch", "transformers", "openvino", "onnxruntime", "matplotlib"}
    return [name for name in found if name.startswith("benchmarks.") or name in heavy]


def test_every_folder_that_measures_is_listed() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/measure.py")} == {*NAMES}
    assert len({*NAMES}) == len(NAMES)


def test_help_imports_options_alone() -> None:
    found = imported_by("from benchmarks.__main__ import _parser; _parser()")
    parts = {name.split(".")[2] for name in found if name.count(".") == 2}
    assert parts == {"options", "block"}, found
    assert all(name.startswith("benchmarks.") for name in found), found


def test_only_the_routine_that_is_asked_for_is_imported() -> None:
    found = imported_by(
        "from benchmarks import record\n"
        "from benchmarks.__main__ import main\n"
        "record.write = lambda *arguments: None\n"
        "main(['roofline'])"
    )
    measuring = {name for name in found if name.endswith(".measure")}
    assert measuring == {"benchmarks.roofline.measure"}


def test_no_folder_imports_what_another_one_measures() -> None:
    """What several need is in a module of its own, which is quick to import."""
    for path in FOLDER.rglob("*.py"):
        own = path.relative_to(FOLDER).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("benchmarks."):
                names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
                others = {name for name in names if f".{own}." not in f"{name}."}
                assert not [name for name in others if str(name).endswith(".measure")], path


def test_every_block_has_a_place_and_every_place_a_block() -> None:
    blocks = [(block.page, block.name) for routine in ROUTINES for block in routine.blocks]
    assert len({*blocks}) == len(blocks)
    pages = {page for page, _ in blocks}
    places = {
        (page, name)
        for page in pages
        for name in re.findall(r"<!-- table: (\w+) -->", (ROOT / page).read_text("utf-8"))
    }
    assert places == {*blocks}


def test_until_a_routine_ran_its_block_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    for routine in ROUTINES:
        for block in routine.blocks:
            if block.result is None:
                text = tables.shown(routine, block)
                assert f": `python -m benchmarks {routine.name}` fills this in." in text


def test_the_stored_command_is_the_plain_one_by_default() -> None:
    parser = _parser()  # which imports the options of all
    shown = [n for n in NAMES if hasattr(sys.modules.get(f"benchmarks.{n}.options"), "SHOWN")]
    assert len(shown) > 5
    for name in shown:
        assert command(name, parser.parse_args([name])) == f"python -m benchmarks {name}"


def test_processes_are_started_by_names_that_exist() -> None:
    """Child processes are named in strings, which no import checks."""
    named = set()
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= {*re.findall(r"^benchmarks(?:\.\w+)+$", node.value)}
    assert {"benchmarks.latency.child", "benchmarks.encoder.worker"} <= named
    assert [name for name in sorted(named) if find_spec(name) is None] == []
