"""What `auto` takes: timed once for a graph and a machine, then remembered."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bitheads import Engine
from bitheads.engine.errors import BackendError
from bitheads.engine.sessions import EncoderSession, is_installed, supports_bf16, tuning
from bitheads.engine.sessions.tuning import Way, fastest, open_fastest, ways
from bitheads.engine.types import TokenBatch

CHOICES: list[Way] = [("openvino", "auto"), ("openvino", "fp32"), ("onnxruntime", "auto")]
GRAPH = "a" * 64


class Timed:
    """A session whose calls take as long as it is told."""

    def __init__(self, way: Way, clock: list[float], seconds: float) -> None:
        self.backend, self.precision = way
        self._clock, self._seconds = clock, seconds

    def run(self, batch: TokenBatch) -> list[Any]:
        assert batch.input_ids.shape == batch.attention_mask.shape == batch.token_type_ids.shape
        assert (batch.lengths == batch.input_ids.shape[1]).all()
        if self._seconds < 0:
            raise RuntimeError("out of memory")
        self._clock[0] += self._seconds
        return []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, list[Way]]]:
    """Seconds of each way -> what opens them, and a list of those that were opened."""

    def make(**seconds: float) -> tuple[Any, list[Way]]:
        clock, opened = [0.0], []
        monkeypatch.setattr("bitheads.engine.sessions.tuning.time.perf_counter", lambda: clock[0])

        def open_way(way: Way) -> EncoderSession:
            opened.append(way)
            took = seconds["_".join(way)]
            if took == 0:
                raise BackendError(f"{way} does not load")
            return Timed(way, clock, took)

        return open_way, opened

    return make


def choose(open_way: Any, folder: Path, graph: str = GRAPH, threads: int | None = 2) -> Way:
    way, session = open_fastest(CHOICES, open_way, graph, folder, threads, 512)
    assert (session.backend, session.precision) == way
    return way


def test_the_first_is_kept_unless_another_is_clearly_faster() -> None:
    a, b, c = CHOICES
    assert fastest({a: 1.0, b: 0.91, c: 1.5}) == a
    assert fastest({a: 1.0, b: 0.89, c: 0.85}) == b
    assert fastest({a: 1.0, b: 0.89, c: 0.7}) == c
    assert fastest({c: 1.0}) == c


def test_each_way_is_timed_once_and_the_fastest_remembered(machine: Any, tmp_path: Path) -> None:
    open_way, opened = machine(openvino_auto=0.02, openvino_fp32=0.03, onnxruntime_auto=0.01)
    assert choose(open_way, tmp_path) == CHOICES[2]
    assert opened == CHOICES
    assert choose(open_way, tmp_path) == CHOICES[2]
    assert opened[3:] == [CHOICES[2]]
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert kept["seconds"] == pytest.approx(
        {"openvino auto": 0.02, "openvino fp32": 0.03, "onnxruntime auto": 0.01}
    )
    assert kept["graph_sha256"] == GRAPH
    assert kept["threads"] == 2
    assert {*kept["versions"]} == {"openvino", "onnxruntime"}


def test_another_graph_or_number_of_threads_is_timed_anew(machine: Any, tmp_path: Path) -> None:
    open_way, opened = machine(openvino_auto=0.01, openvino_fp32=0.03, onnxruntime_auto=0.02)
    choose(open_way, tmp_path)
    choose(open_way, tmp_path, graph="b" * 64)
    choose(open_way, tmp_path, threads=1)
    assert opened == 3 * CHOICES


def test_another_version_is_timed_anew(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_way, opened = machine(openvino_auto=0.01, openvino_fp32=0.03, onnxruntime_auto=0.02)
    choose(open_way, tmp_path)
    monkeypatch.setattr("bitheads.engine.sessions.tuning.version", lambda name: "1000.0")
    choose(open_way, tmp_path)
    assert opened == 2 * CHOICES


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seconds": {}}', '{"seconds": {"x": 1}}'])
def test_a_file_that_is_not_sound_is_written_again(
    machine: Any, tmp_path: Path, content: str
) -> None:
    open_way, opened = machine(openvino_auto=0.01, openvino_fp32=0.03, onnxruntime_auto=0.02)
    choose(open_way, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(content)
    choose(open_way, tmp_path)
    assert opened == 2 * CHOICES
    assert json.loads(file.read_text()).keys() == json.loads(whole).keys()


def test_a_slow_way_is_not_called_for_long(machine: Any, tmp_path: Path) -> None:
    open_way, _ = machine(openvino_auto=10.0, openvino_fp32=30.0, onnxruntime_auto=20.0)
    assert choose(open_way, tmp_path) == CHOICES[0]
    assert tuning.time.perf_counter() == pytest.approx(2 * (10 + 30 + 20))


def test_what_does_not_load_or_run_is_not_taken(machine: Any, tmp_path: Path) -> None:
    open_way, _ = machine(openvino_auto=0, openvino_fp32=-1, onnxruntime_auto=0.5)
    assert choose(open_way, tmp_path) == CHOICES[2]
    open_way, _ = machine(openvino_auto=0, openvino_fp32=-1, onnxruntime_auto=0)
    with pytest.raises(BackendError, match=r"'openvino', 'auto'\) does not load"):
        choose(open_way, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_was_fastest_and_does_not_load_any_more(machine: Any, tmp_path: Path) -> None:
    open_way, _ = machine(openvino_auto=0.02, openvino_fp32=0.03, onnxruntime_auto=0.01)
    choose(open_way, tmp_path)
    open_way, _ = machine(openvino_auto=0.02, openvino_fp32=0.03, onnxruntime_auto=0)
    assert choose(open_way, tmp_path) == CHOICES[0]


def test_a_folder_that_cannot_be_written_is_done_without(machine: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    open_way, _ = machine(openvino_auto=0.02, openvino_fp32=0.03, onnxruntime_auto=0.01)
    assert choose(open_way, tmp_path / "file" / "folder") == CHOICES[2]


def test_what_was_asked_for_stands_for_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitheads.engine.sessions.tuning.is_installed", lambda name: True)
    monkeypatch.setattr(
        "bitheads.engine.sessions.tuning.supports_bf16", lambda backend: backend == "openvino"
    )
    assert ways("auto", "auto") == CHOICES
    assert ways("auto", "fp32") == [("openvino", "fp32"), ("onnxruntime", "fp32")]
    assert ways("auto", "bf16") == [("auto", "bf16")]
    assert ways("auto", "int8") == [("auto", "int8")]
    assert ways("onnxruntime", "auto") == [("onnxruntime", "auto")]
    assert ways("openvino", "fp32") == [("openvino", "fp32")]
    monkeypatch.setattr("bitheads.engine.sessions.tuning.supports_bf16", lambda backend: False)
    assert ways("openvino", "auto") == [("openvino", "auto")]


def test_an_engine_remembers(
    own_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Real sessions; which one is faster on a tiny encoder is not known beforehand."""
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO, logger="bitheads"):
        with Engine.load(own_bundle) as engine:
            taken, codes = engine.backend, engine.encode(["The tide was out."]).codes
        assert "once for this bundle on this machine" in caplog.text
        caplog.clear()
        with Engine.load(own_bundle) as engine:
            assert engine.backend == taken
            np.testing.assert_array_equal(engine.encode(["The tide was out."]).codes, codes)
        assert "once for this bundle" not in caplog.text
    (file,) = (tmp_path / "times").iterdir()
    kept = json.loads(file.read_text())
    count = 1 + supports_bf16("openvino") + is_installed("onnxruntime")
    assert len(kept["seconds"]) == count
    # What the file says is what counts.
    kept["seconds"] = {name: float(i + 1) for i, name in enumerate(reversed(kept["seconds"]))}
    file.write_text(json.dumps(kept))
    slowest_guess = kept["ways"][-1].split()[0]
    with Engine.load(own_bundle) as engine:
        assert engine.backend.startswith(f"{slowest_guess} ")


def test_times_of_another_case_or_another_user_are_not_believed(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write there could else choose the backend, so the codes."""
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path))
    Engine.load(own_bundle).close()
    (file,) = (tmp_path / "times").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    kept = json.loads(file.read_text())
    absurd = dict.fromkeys(kept["seconds"], 1000000000.0)
    for other, mode in (({"threads": 99}, 0o600), ({}, 0o602)):
        file.write_text(json.dumps({**kept, "seconds": absurd, **other}))
        file.chmod(mode)
        Engine.load(own_bundle).close()
        assert set(json.loads(file.read_text())["seconds"].values()).isdisjoint({1e9})
        assert file.stat().st_mode & 0o777 == 0o600


def test_without_a_cache_nothing_is_timed(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="bitheads"):
        Engine.load(tiny_bundle).close()
    assert "once for this bundle" not in caplog.text


def test_another_distribution_has_the_library(tmp_path: Path) -> None:
    """As onnxruntime-gpu has onnxruntime: no distribution has the module's name."""
    packages = Path(onnxruntime.__file__).parents[1]
    for path in packages.iterdir():
        name = re.sub(r"^onnxruntime-(.*)\.dist-info$", r"onnxruntime_gpu-\1.dist-info", path.name)
        (tmp_path / name).symlink_to(path)
    program = """
import site, sys
site.addsitedir(sys.argv[1])
from importlib.metadata import PackageNotFoundError, version
try:
    version("onnxruntime")
except PackageNotFoundError:
    from bitheads.engine.sessions.tuning import _version
    print(_version("onnxruntime"), _version("openvino"))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [version("onnxruntime"), version("openvino")]
