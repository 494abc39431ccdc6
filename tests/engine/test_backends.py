"""A backend is one file and one row: nothing else knows which there are."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bitheads import Engine
from bitheads.engine import sessions
from bitheads.engine.commands import predict
from bitheads.engine.device.plan import MODULES
from bitheads.engine.sessions import (
    BACKENDS,
    DEVICE_BACKENDS,
    Backend,
    available_ways,
    load_file,
    onnxruntime,
    tuning,
)

ROOT = Path(__file__).parent.parent.parent
TEXTS = ["The tide was out.", "A second, rather longer sentence about nothing at all."]


def sources() -> list[Path]:
    found = [
        path for room in ("engine", "export", "training") for path in (ROOT / room).rglob("*.py")
    ]
    return [path for path in found if ROOT / "engine/sessions" not in path.parents]


def test_no_other_room_asks_for_a_backend_by_its_name() -> None:
    names = {*BACKENDS, *DEVICE_BACKENDS} - {*MODULES}  # "tensorrt" is a flavour of plans, too
    asked = [
        f"{path}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and part.value in names
    ]
    assert not asked


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_file_of_a_row_has_what_the_row_says(backend: str) -> None:
    row, file = BACKENDS[backend], load_file(backend)
    assert hasattr(file, "open_lanes") == row.has_lanes
    assert hasattr(file, "has_bf16") == ("bf16" in row.precisions)
    assert hasattr(file, "processor") == row.names_processor
    assert hasattr(file, "table_rows") == row.reads_graphs
    assert file.Session.backend == backend


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend of its own: ONNX Runtime under another name, with all that a row can say."""
    file = ModuleType("bitheads.engine.sessions.echo")

    class Session(onnxruntime.Session):
        backend = "echo"

        def __init__(self, graph, names, precision, threads, cache=None):  # type: ignore[no-untyped-def]
            super().__init__(graph, names, "fp32", threads, cache)

    def open_lanes(graph, names, precision, threads, cache):  # type: ignore[no-untyped-def]
        return [Session(graph, names, precision, 1, cache) for _ in range(2)]

    vars(file).update(
        Session=Session,
        open_lanes=open_lanes,
        has_bf16=lambda: True,
        processor=lambda: "a processor",
        table_rows=lambda graph: {"input_ids": 1000},
    )
    monkeypatch.setitem(sys.modules, file.__name__, file)
    monkeypatch.setattr(sessions, "echo", file, raising=False)
    row = Backend("onnxruntime", "", ("fp32", "bf16"), True, True, True, True)
    monkeypatch.setitem(BACKENDS, "echo", row)


@pytest.mark.usefixtures("echo")
def test_a_row_and_a_file_are_a_backend(tiny_bundle: Path) -> None:
    with Engine.load(tiny_bundle, "onnxruntime") as engine:
        expected = engine.encode(TEXTS * 40, max_batch_tokens=32)
        assert engine.encoder.pad_lengths(np.array([3])).tolist() == [3]
    with Engine.load(tiny_bundle, "echo", threads=2) as engine:
        assert engine.backend == "echo fp32"
        assert engine.encoder.pad_lengths(np.array([3])).tolist() == [4]
        found = engine.encode(TEXTS * 40, max_batch_tokens=32)
        assert len(engine.encoder.open_runners()[1]) == 2
    assert np.array_equal(found.codes, expected.codes)
    assert [way for way in available_ways(["int8"]) if way[0] == "echo"] == [
        ("echo", "fp32"),
        ("echo", "bf16"),
    ]
    assert tuning.ways("echo", "auto") == [("echo", "auto"), ("echo", "fp32")]
    assert "echo" in predict._parser().format_help()
