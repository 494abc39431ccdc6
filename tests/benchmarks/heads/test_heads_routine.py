"""The heads' benchmark: its peers compute what they should, its arithmetic, and that it runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.accuracy.tasks import TASKS, require_data
from benchmarks.heads import accuracy, cases, encoders, measure, table
from benchmarks.heads.cases import QUICK
from benchmarks.heads.speed import PEERS
from benchmarks.inputs.random_heads import random_codes, random_heads, spec_of
from benchmarks.options import command
from benchmarks.pages import tables
from benchmarks.processes import memory
from benchmarks.routines import ROUTINES
from bitheads.engine import PositionPooling, Quantization, _kernels
from bitheads.engine.heads import float_heads

SHAPE = QUICK.encoders["tiny"]
BOTH = [Quantization.SIGN, Quantization.UINT8]


@pytest.mark.parametrize("pooling", list(PositionPooling))
def test_the_float64_evaluation_has_all_poolings(pooling: PositionPooling) -> None:
    features = random_codes(spec_of(SHAPE, Quantization.SIGN), 5)
    (head,) = random_heads(features.spec, SHAPE.attention_heads, 1)
    if pooling is not PositionPooling.ATTENTION:
        head = replace(head, position_pooling=pooling, query=None, value=None)
    (expected,) = float_heads.predict_heads(features, [head])
    np.testing.assert_allclose(accuracy.evaluate(features, head), expected, atol=1e-4)


def test_no_more_heads_than_memory_has_room_for() -> None:
    assert cases.tasks_that_fit(1000, 4_000_000, 20_000_000_000) == 1000
    assert cases.tasks_that_fit(1000, 4_000_000, 4_000_000_000) == 600
    assert cases.tasks_that_fit(1000, 4_000_000, 1_000_000) == 1
    assert memory.available_bytes() > 1 << 20


def test_marginal_cost() -> None:
    us_of = {1: 50.0, 14: 440.0, 100: 2160.0, 1000: 20160.0}
    assert encoders.marginal_us(us_of) == {14: 30, 100: 20, 1000: 20}


def test_break_even() -> None:
    assert encoders.break_even(70, 0, 10) == 8  # at seven tasks they cost the same
    assert encoders.break_even(69, 0, 10) == 7
    assert encoders.break_even(69, 1, 10) == 8
    assert encoders.break_even(5, 1, 10) == 1
    assert encoders.break_even(5, 10, 10) is None
    for shared, head, own in ((123.0, 4.0, 31.0), (1.0, 0.5, 0.75)):
        k = encoders.break_even(shared, head, own)
        assert k is not None
        assert shared + k * head < k * own
        assert k == 1 or shared + (k - 1) * head >= (k - 1) * own


def test_costs_beside_the_encoder() -> None:
    """The first task pays for what all share; only what more tasks add is held against it."""

    def encoder(us: float, **more: Any) -> dict[str, Any]:
        return {"us_per_text": {"us": us}, **more}

    measured = {
        "big": encoder(59_000.0, packing_us=2_000.0),
        encoders.DISTILLED: encoder(10_000.0, own_head_us=30.0),
    }
    cells = [
        {
            "shape": "big",
            "codes": "sign",
            "tasks": tasks,
            "us_per_text_and_task": {"avx2": {"us": 29.5 + 10 / tasks}},
        }
        for tasks in (1, 14, 100)
    ]
    costs = encoders.costs(measured, cells, "avx2")["big"]["sign"]
    assert costs["us_of_the_next_task"] == {"14": 29.5, "100": 29.5}
    assert costs["share_of_encoder"] == {"14": 5e-4, "100": 5e-4}
    assert costs["cheaper_from_tasks"] == 7


def test_a_quick_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Nothing is stored; what is printed makes a table."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert command_line.main(["heads", "--quick"]) == 0
    assert not list(tmp_path.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert stored["command"] == "python -m benchmarks heads --quick"
    result = stored["result"]
    assert [cell["tasks"] for cell in result["cells"]] == [*QUICK.tasks] * 2
    levels = {*_kernels.supported_levels()}
    for cell in result["cells"]:
        expected = levels if cell["tasks"] == 1 else levels - {"serial"}
        assert {*cell["us_per_text_and_task"]} == {*expected, *PEERS}
        assert {*cell["times_faster"]} == {*cell["percent_of_peak"]} == expected
        for us in cell["us_per_text_and_task"].values():
            assert 0 < us["us_min"] <= us["us"] <= us["us_max"]
    assert all(row["same_bits"] and row["threads"] == 2 for row in result["threads"])
    assert {*result["encoders"]} == {"tiny", "distilled"}
    for head in result["accuracy"]["random heads"].values():
        assert head["max_probability_difference"] < 2e-3
        assert head["same_top_label"] == 1
    shown = table.measured(stored)
    assert len(re.findall(r"^\| 64 / 4 \|", shown, re.MULTILINE)) == 8
    assert "2 threads are" in shown
    assert "to the same bits" in shown


def test_options_are_part_of_the_command() -> None:
    plain = command_line._parser().parse_args(["heads"])
    assert command("heads", plain) == "python -m benchmarks heads"
    words = ["heads", "--data", "DIR", "--threads", "4", "--skip-encoder"]
    options = command_line._parser().parse_args(words)
    assert command("heads", options) == f"python -m benchmarks {' '.join(words)}"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--threads", "0"], "--threads: got 0, expected at least 1."),
        (["--bundle", "none"], "none"),
    ],
)
def test_what_is_missing_is_said_first(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["heads", *arguments]) == 1
    assert error in capsys.readouterr().err


def test_data_without_test_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"no sst2/test\.tsv in it"):
        require_data(tmp_path, "test")


def test_shipped_heads_on_the_demo(minilm_bundle: Path) -> None:
    found = accuracy.shipped(minilm_bundle, None, lambda line: None)
    assert len(found) == 9
    for task, head in found.items():
        assert head["texts"] == (8 if task == "duplicate" else 28)
        # Each logit of `intent` is one hidden feature times 157, so a step of that counts.
        # `duplicate` is rounded twice more: to the bytes of its half for pairs, and by that half.
        bound = 5e-3 if task in ("intent", "duplicate") else 2e-3
        assert head["max_probability_difference"] < bound, task
        assert head["same_top_label"] == 1, task


def test_a_run_is_stored(
    minilm_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the shipped heads on test files; at tiny sizes, and no encoder timed."""
    data, results = tmp_path / "data", tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for task, folder in TASKS.items():
        pair = task == "duplicate"
        (data / folder).mkdir(parents=True)
        row = "x\tOne text.\tAnother text." if pair else "x\tOne text."
        header = "label\ttext_a\ttext_b" if pair else "label\ttext"
        (data / folder / "test.tsv").write_text(f"{header}\n{row}\n{row}\n", encoding="utf-8")
    monkeypatch.setattr(record, "RESULTS", results)
    monkeypatch.setattr(cases, "FULL", QUICK)
    options = ["--bundle", str(minilm_bundle), "--data", str(data), "--skip-encoder"]
    assert command_line.main(["heads", *options]) == 0
    stored = record.read("heads")
    assert stored["command"] == "python -m benchmarks heads --data DIR --skip-encoder"
    assert {*stored["result"]["accuracy"]["shipped heads"]} == {*TASKS}
    assert "7 shipped heads on test files, 14 texts" in table.measured(stored)


def test_interrupted_runs_store_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(measure.speed, "measure", interrupt)
    threads = torch.get_num_threads()
    assert command_line.main(["heads", "--quick"]) == 130
    assert "no result was stored" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert torch.get_num_threads() == threads


def made_up() -> dict[str, Any]:
    us = {"us": 27.04, "us_min": 26.0, "us_max": 30.0}
    faster = {"torch_usual": 101.6, "torch_folded": 4.123, "torch_folded_unpacking": 5, "numpy": 6}
    cell = {
        "shape": "RoBERTa-large",
        "dim": 1024,
        "attention_heads": 16,
        "codes": "sign",
        "tasks": 1000,
        "us_per_text_and_task": {"avx512_vnni": us},
        "times_faster": {"avx512_vnni": faster, "avx2": {**faster, "torch_usual": 15.26}},
        "percent_of_peak": {"avx512_vnni": 61.4},
    }
    latency = {"native": {"p50": 410, "p95": 450}, "torch_folded": {"p50": 12_400, "p95": 13_000}}
    head = {"texts": 1000, "same_top_label": 1.0, "max_probability_difference": 3.4e-4}
    result = {
        "level": "avx512_vnni",
        "text_tokens": 50,
        "cells": [cell, {**cell, "tasks": 1, "times_faster": {"avx512_vnni": faster}}],
        "threads": [{"threads": 2, "times_faster": t, "same_bits": True} for t in (1.9, 1.94)],
        "latency": [{"dim": 1024, "codes": "sign", "tasks": 14, "us": latency}],
        "loading": {
            "RoBERTa-large": {
                "dim": 1024, "ms_per_head": 12.3, "memory_bytes": 4.2e6, "file_bytes": 4.23e6,
            }
        },
        "encoders": {
            "RoBERTa-large": {"us_per_text": {"us": 150_000.0}, "precision": "bf16"},
            "distilled": {"dim": 768},
        },
        "costs": {
            "RoBERTa-large": {
                "sign": {
                    "share_of_encoder": {"14": 1.8e-4, "100": 1.9e-4, "1000": 2e-4},
                    "cheaper_from_tasks": 7,
                }
            }
        },
        "accuracy": {
            "random heads": {"a": {**head, "max_probability_difference": 1.0}},
            "texts": "test files",
            "shipped heads": {"x": head, "y": {**head, "same_top_label": 0.999}},
        },
    }  # fmt: skip
    return {
        "name": "heads",
        "command": "python -m benchmarks heads",
        "date": "2026-01-01",
        "cores": 2,
        "cpu": "X",
        "result": result,
    }


def test_the_table_of_a_made_up_result() -> None:
    shown = table.measured(made_up())
    for line in (
        "| 1,024 / 16 | sign | 1,000 | 27 | 102x | 4.12x | 6x | 15.3x | 61% |",
        "| 1,024 / 16 | sign | 1 | 27 | 102x | 4.12x | 6x |  | 61% |",
        "2 threads are 1.90 to 1.94 times as fast as one, to the same bits.",
        "410 us at dim 1,024 (p95 450 us; folded in torch 12 ms, p95 13 ms).",
        "150 ms a text on one thread of OpenVINO, bf16",
        "takes 0.018% for task 14 and 0.020% for task 1,000",
        "(6 layers, dim 768) from 7 tasks on.",
        "Probabilities of the 2 shipped heads on test files, 2,000 texts in all, are within 0.0003",
        "the same top label on 99.95%.",
        "A head takes 12 ms to read and lay out and 4.2 MB at dim 1,024 (file: 4.2 MB).",
        "`python -m benchmarks heads`, 2026-01-01, 2 cores of X, [stored result]",
    ):
        assert line in shown, line


def test_another_machine_in_a_sentence() -> None:
    stored = made_up()
    slower = stored["result"]["cells"][0]["times_faster"]["avx512_vnni"]
    stored["result"]["cells"][0]["times_faster"]["avx512_vnni"] = {**slower, "torch_usual": 9.5}
    shown = table.elsewhere(stored)
    assert "9.50 to 101.60 times as fast as torch's `MultiheadAttention`" in shown
    assert "4.12 times as the folded form in torch on signs" in shown
    assert "uint8" not in shown
    assert "2 cores of X" in shown


def test_a_run_without_encoders_has_a_table() -> None:
    stored = made_up()
    del stored["result"]["encoders"], stored["result"]["costs"]
    stored["result"]["threads"][0]["same_bits"] = False
    shown = table.measured(stored)
    assert "OpenVINO" not in shown
    assert "NOT to the same bits" in shown


def test_one_task_is_no_plural() -> None:
    stored = made_up()
    costs = stored["result"]["costs"]["RoBERTa-large"]["sign"]
    for cheaper, words in ((1, "from 1 task on."), (None, "never.")):
        costs["cheaper_from_tasks"] = cheaper
        assert words in table.measured(stored)


def test_the_readme_says_when_nothing_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    (routine,) = (routine for routine in ROUTINES if routine.name == "heads")
    next_task, own, elsewhere = routine.blocks
    for block in (next_task, own):
        assert tables.shown(routine, block) == (
            "**Not yet measured**: `python -m benchmarks heads` fills this in."
        )
    with pytest.raises(FileNotFoundError):  # which no command fills in
        tables.shown(routine, elsewhere)
