"""Percentiles, what is skipped and what fails, and the report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.gpu import measure, report, table
from benchmarks.gpu.options import PARTS
from benchmarks.gpu.outcome import Skip, attempt, failures, latencies
from benchmarks.options import command
from benchmarks.pages import tables
from benchmarks.routines import ROUTINES
from bitheads.engine.errors import BackendError, DeviceMemoryError, PlanError


def test_latencies_are_of_runs_that_happened() -> None:
    found = latencies([i / 1000 for i in range(1, 101)])
    assert (found["p50_ms"], found["p95_ms"], found["p99_ms"]) == (51, 96, 100)
    assert (found["mean_ms"], found["runs"]) == (50.5, 100)
    assert latencies([0.002])["p99_ms"] == 2
    with pytest.raises(ValueError, match="nothing"):
        latencies([])


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Skip("no torch"), "skipped", "no torch"),
        (PlanError("no plan.\nType: x"), "skipped", "no plan. Type: x"),
        (DeviceMemoryError("full"), "skipped", "full"),
        (ImportError("No module named 'torch'"), "skipped", "ImportError: No module named 'torch'"),
        (BackendError("the GPU failed"), "failed", "the GPU failed"),
        (ValueError(""), "failed", "ValueError: ValueError('')"),
    ],
)
def test_only_what_is_missing_is_skipped(error: Exception, status: str, reason: str) -> None:
    def measure(argument: int) -> None:
        raise error

    outcome = attempt("something", measure, 1)
    assert (outcome["status"], outcome["reason"]) == (status, reason)
    assert ("traceback" in outcome) == (status == "failed")


def test_results_are_kept_and_failures_found() -> None:
    outcome = attempt("a sum", lambda a, b: {"sum": a + b}, 1, 2)
    assert (outcome["status"], outcome["result"]) == ("measured", {"sum": 3})
    tree = {"encoders": {"tiny": {"plan": {"status": "failed", "reason": "x"}, "heads": outcome}}}
    assert failures(tree) == ["encoders, tiny, plan: x"]
    assert failures({"a": {"status": "skipped", "reason": "y"}}) == []


def _record() -> dict[str, Any]:
    def done(result: Any) -> dict[str, Any]:
        return {"status": "measured", "result": result, "wall_s": 1.0}

    skipped = {"status": "skipped", "reason": "torch cannot use the GPU", "wall_s": 0.0}
    ms = {"p50_ms": 0.5, "p95_ms": 0.61, "p99_ms": 0.7, "mean_ms": 0.5, "runs": 3, "tokens": [8]}
    rate = {
        "texts_per_s": 20000.0,
        "tokens_per_s": 1e6,
        "tokens_per_s_without_tokenizing": 2e6,
    }
    speed = {
        "load_s": 1.5,
        "first_call_s": 0.2,
        "latency": {"8": ms},
        "throughput": {"random lengths": {"1024": done(rate), "4096": dict(skipped)}},
    }
    same = {"same_label": 0.99, "worst_task": "intent", "same_label_of_worst_task": 0.9}
    packed = {"us": 100.0, "gb_per_s": 3000.0, "times_a_copy": 0.55}
    encoder = {
        "plan": done({"flavour": "tensorrt", "version": "10.9", "mb": 45, "build_s": 61.2,
                      "profiles": ["1x1,1x32,1x512"], "file": "x.plan"}),
        "speed": {"tensorrt": done(speed), "torch fp16": skipped},
        "accuracy": done({"texts": 9, "tasks": 7, "contenders": {
            "torch fp32": done({"tokens": 5}),
            "tensorrt": done({**same, "sign_agreement": 0.99812})}}),
        "share": done({"share": 0.021, "encoder_ns_per_token": 43.0, "tokens": 9}),
        "heads": done({"14": done({"ms": 1, "ns_per_token": 2, "ns_per_token_and_task": 3})}),
    }  # fmt: skip
    result = {
        "machine": {"name": "NVIDIA X", "compute_capability": "9.0", "memory_gb": 80.0,
                    "cuda_of_driver": 13000, "nvidia_smi": None, "versions": {"pycuda": "1"}},
        "encoders": {"tiny": encoder},
        "kernels": done({"RoBERTa-large, float16": done(
            {"copy_us": 180.0, "copy_gb_per_s": 3000.0, "modes": {"sign": packed}})}),
    }  # fmt: skip
    machine = {"date": "2026-01-01", "commit": "abc", "cores": 2, "cpu": "a CPU", "python": "3.11"}
    return {"name": "gpu", "command": "python -m benchmarks gpu", **machine, "result": result}


def test_the_report_says_what_was_and_was_not_measured() -> None:
    shown = report.render(_record())
    for line in (
        "# bitheads on NVIDIA X",
        "tensorrt 10.9, 45 MB, built in 61 s; profiles 1x1,1x32,1x512",
        "| tensorrt | 8 | 0.5 | 0.61 | 0.7 | 1.5 | 0.2 |",
        "| tensorrt | random lengths | 1024 | 20,000 | 1,000,000 | 2,000,000 |",
        "| tensorrt | 99.812% | 99.00% | 90.0% (intent) |",
        "2.1% of the encoder's time, which is 43 ns per token (9 tokens).",
        "| 14 | 1 | 2 | 3 |",
        "| RoBERTa-large, float16: sign | 100 | 3,000 | 0.55 |",
        "- **tiny, speed, torch fp16** skipped: torch cannot use the GPU",
        "- **tiny, speed, tensorrt, throughput, random lengths, 4096** skipped: torch cannot use",
    ):
        assert line in shown, line


def test_the_readme_says_not_run_until_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    (routine,) = (routine for routine in ROUTINES if routine.name == "gpu")
    (block,) = routine.blocks
    assert tables.shown(routine, block) == (
        "**Not yet run on a GPU**, so there is nothing to show here: `python -m benchmarks gpu` "
        "fills this in."
    )
    (tmp_path / "gpu.json").write_text(json.dumps(_record()))
    shown = tables.shown(routine, block)
    assert shown == table.measured(record.read("gpu"))
    assert "| tiny | tensorrt |  |  |  | 99.812% | 99.00% |" in shown
    assert "| tiny | 43 ns |  |  |  | 2 |  |  |" in shown
    assert "Skipped or failed: 2 measurements" in shown
    assert "2026-01-01, NVIDIA X" in shown


def test_a_report_of_nothing_is_a_report() -> None:
    stored = _record()
    stored["result"] = {"machine": stored["result"]["machine"], "encoders": {"tiny": {}}}
    assert "## tiny" in report.render(stored)


def _options(**changes: Any) -> argparse.Namespace:
    plain = {"bundle": Path("none"), "encoder": "x", "roberta_large": False, "quick": True}
    return argparse.Namespace(**{**plain, "only": None, "rebuild_plan": False, **changes})


def test_the_command_is_what_was_typed() -> None:
    assert command("gpu", _options(quick=False)) == "python -m benchmarks gpu"
    options = _options(roberta_large=True, only=["plan", "heads"])
    expected = "python -m benchmarks gpu --quick --roberta-large --only plan heads"
    assert command("gpu", options) == expected
    parsed = command_line._parser().parse_args(expected.split()[3:])
    assert parsed.only == ["plan", "heads"]
    assert set(parsed.only) < set(PARTS)


def test_without_a_gpu_there_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise BackendError("no GPU can be used (x). Type nvidia-smi.")

    monkeypatch.setattr("bitheads.engine.device.driver.import_driver", missing)
    assert command_line.main(["gpu"]) == 1
    assert capsys.readouterr().err == "error: no GPU can be used (x). Type nvidia-smi.\n"


def test_a_failed_measurement_ends_in_an_error_after_the_report(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: a run's parts and its result, stored under its name."""
    from fake_gpu import FakeGpu

    from benchmarks.gpu.context import Gpu

    class Opened(Gpu):
        def __enter__(self) -> Gpu:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

    fake = FakeGpu()
    monkeypatch.setattr(measure, "open_gpu", lambda: Opened(fake, fake, fake))
    monkeypatch.setattr(measure.machine, "describe", lambda d: _record()["result"]["machine"])
    monkeypatch.setattr(record, "RESULTS", tmp_path / "a" / "b")
    monkeypatch.setattr(measure, "REPORT", tmp_path / "report.md")
    (tmp_path / "a" / "b").mkdir(parents=True)

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("x")

    monkeypatch.setattr(measure.kernels, "pool_and_pack", fail)
    monkeypatch.setattr("benchmarks.gpu.contenders.find_spec", lambda name: None)
    options = _options(bundle=tiny_bundle, only=["plan", "kernels"])
    with pytest.raises(BackendError, match="1 measurements failed:\n  kernels: ZeroDivisionError"):
        measure.run(options)
    stored = json.loads((tmp_path / "a" / "b" / "gpu.json").read_text())
    assert stored["result"]["encoders"]["tiny-bert"]["plan"]["status"] == "skipped"
    report = (tmp_path / "report.md").read_text()
    assert "- **tiny-bert, plan** skipped: TensorRT is not installed" in report
    assert "- **kernels** failed: ZeroDivisionError: x" in report
