"""`python -m benchmarks gpu` on the software device: all of it, with few repeats of small things.

Its times mean nothing; that it runs, frees what it takes and says what it left out does.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import software_tensorrt
from test_gpu_heads import make_spec

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.gpu import head_kernels, kernels, measure, plans, speed
from benchmarks.gpu.contenders import open_host_packing, open_uncaptured, open_without_graphs
from benchmarks.gpu.context import Bench, Repeats
from benchmarks.gpu.kernels import Layers
from benchmarks.gpu.outcome import Skip
from benchmarks.inputs.random_heads import random_heads
from benchmarks.inputs.shapes import Shape
from benchmarks.roofline import model
from bitheads import Engine
from bitheads.engine.device.heads import DeviceHeads
from bitheads.engine.device.plan import PLANS
from bitheads.engine.errors import PlanError

FEW = Repeats(warm_up=1, latency=2, throughput=1, kernel=2, texts=20)

pytestmark = pytest.mark.usefixtures("tensorrt_in_software", "device_code")


@pytest.fixture
def bench(planned_bundle: Path) -> Bench:
    return Bench(planned_bundle, "", FEW)


@pytest.mark.long
def test_the_whole_report(
    planned_bundle: Path,
    tiny_encoder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "REPORT", tmp_path / "report.md")
    monkeypatch.setattr(measure, "QUICK", FEW)
    monkeypatch.setattr(speed, "BUDGETS", (64,))
    monkeypatch.setattr(speed, "LENGTHS", (8,))
    monkeypatch.setattr("benchmarks.gpu.accuracy.MAX_TEXTS", 20)
    monkeypatch.setattr(kernels, "SHAPES", {"tiny": Layers(num_layers=3, dim=64, tokens=256)})
    monkeypatch.setattr(head_kernels, "TASK_COUNTS", (1, 3))
    monkeypatch.setattr(head_kernels, "TEXTS", 5)
    encoder = str(tiny_encoder("bert"))
    words = ["gpu", "--quick", "--bundle", str(planned_bundle), "--encoder", encoder]
    assert command_line.main(words) == 0

    result = record.read("gpu")["result"]
    (measured,) = result["encoders"].values()
    statuses = {name: outcome["status"] for name, outcome in measured["speed"].items()}
    for name in ("tensorrt", "tensorrt, no CUDA graphs", "tensorrt, packed on the CPU"):
        assert statuses.pop(name) == "measured"
    assert set(statuses.values()) == {"skipped"}  # ONNX Runtime and torch have no GPU here
    for name in ("plan", "share", "heads", "accuracy"):
        assert "measured" in str(measured[name]), name
    accuracy = measured["accuracy"]["result"]["contenders"]["tensorrt"]["result"]
    assert accuracy["sign_agreement"] > 0.99
    assert accuracy["same_bytes_again"]
    assert {o["status"] for o in result["kernels"]["result"].values()} == {"measured"}
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for title in ("Plan", "One text", "Many texts", "Accuracy", "Share", "Heads", "beside a copy"):
        assert title in report, title


def test_contenders_without_graphs_launch_none(bench: Bench, software_cuda: Any) -> None:
    with open_without_graphs(bench) as engine:
        codes = [engine.encode(["the tide was out"]).codes for _ in range(3)]
    assert software_cuda.counter("graph_launches") == 0
    with Engine.load(bench.bundle, backend="tensorrt") as engine:
        for expected in codes:
            np.testing.assert_array_equal(engine.encode(["the tide was out"]).codes, expected)
    assert software_cuda.counter("graph_launches") == 2


def test_packing_on_the_host_gives_the_same_codes(bench: Bench) -> None:
    texts = bench.maker.random_texts(10)
    with open_host_packing(bench) as peer:
        got = peer.encode(texts)
        answers = peer.predict(texts)
    with open_uncaptured(bench) as (engine, could_capture):
        np.testing.assert_array_equal(engine.encode(texts).codes, got.codes)
        assert set(engine.predict(texts)) == set(answers)
    assert could_capture


def test_tensorrt_rtx_has_no_contender_without_graphs(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", software_tensorrt)
    strategy = software_tensorrt.RtxCudaGraphStrategy
    monkeypatch.setattr(software_tensorrt, "CudaGraphStrategy", strategy, raising=False)
    folder = tmp_path / "bundle"
    software_tensorrt.with_heads_and_plan(tiny_bundle, folder, flavour="tensorrt-rtx")
    bench = Bench(folder, "", FEW)
    with pytest.raises(Skip, match="records CUDA graphs by itself"), open_without_graphs(bench):
        pass
    assert kernels.share_of_encoder(bench)["tokens"] > 0


def test_plans_are_found_or_built(
    bench: Bench, gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plans.ensure_plan(bench, gpu.device, rebuild=False)
    assert (found["flavour"], found["build_s"]) == ("tensorrt", None)
    assert found["profiles"] == [str(profile) for profile in software_tensorrt.PROFILES]

    own = Bench(Path(shutil.copytree(bench.bundle, tmp_path / "bundle")), "", FEW)
    shutil.rmtree(own.bundle / PLANS)
    built: list[Path] = []

    def build(folder: Path) -> float:
        built.append(folder)
        if len(built) == 1:
            software_tensorrt.write_software_plan(folder, software_tensorrt.PROFILES)
        else:
            shutil.rmtree(folder / PLANS)
        return 1.5

    monkeypatch.setattr(plans, "build", build)
    assert plans.ensure_plan(own, gpu.device, rebuild=False)["build_s"] == 1.5
    assert plans.ensure_plan(own, gpu.device, rebuild=False)["build_s"] is None
    assert built == [own.bundle]
    with pytest.raises(PlanError):  # a build that made nothing this machine can use
        plans.ensure_plan(own, gpu.device, rebuild=True)


def test_the_roofline_counts_the_launches_that_there_are(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("sign", 64)
    monkeypatch.setattr("bitheads.engine.device.heads.WORKSPACE_BYTES", 100_000)
    for attention_heads, tasks in ((4, 1), (4, 9), (8, 40)):
        heads = list(random_heads(spec, attention_heads, tasks))
        shape = Shape(1, spec.dim, 128, attention_heads, pooled_layers=1)
        with gpu.device.current("laying out heads"):
            device_heads = DeviceHeads(gpu.device, gpu.code, spec, gpu.stream)
            try:
                got = device_heads.group(heads)._block_texts
            finally:
                device_heads.close()
        assert got == model.block_texts(shape, tasks)
