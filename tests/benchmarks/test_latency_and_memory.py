"""Latency and memory run from end to end, and their arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from random_heads import random_head

from benchmarks import __main__ as command_line
from benchmarks import child, cpu_tables, latency_routine, record, rss, texts
from benchmarks.heads.timing import Samples
from benchmarks.markdown import duration, size
from bitheads import Engine
from bitheads.engine.heads.head_file import write_head


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(record, "RESULTS", folder)
    return folder


def test_a_quick_run_of_latency(own_bundle: Path, results: Path, capsys: Any) -> None:
    spec = Engine.load(own_bundle).spec
    write_head(random_head(spec, task="urgency"), own_bundle / "heads" / "urgency.safetensors")
    assert command_line.main(["latency", "--quick", "--bundle", str(own_bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = stored["result"]
    assert result["tasks"] == 1
    assert {*result["us"]} == {"predict", "bare encoder"}
    start = result["start"]
    for which in ("first", "later"):
        parts = sum(start[which][name] for name in ("import_s", "load_s", "predict_s"))
        assert 0 < parts < start[which]["first_answer_s"]
        assert start[which]["import_s"] > 0.01
    shown = cpu_tables.latency(stored)
    assert "| `predict`, 1 tasks |" in shown
    assert "with an empty cache folder" in shown


def test_latency_needs_heads(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["latency", "--quick", "--bundle", str(tiny_bundle)]) == 1
    assert "has no heads" in capsys.readouterr().err


def test_percentiles() -> None:
    samples = Samples({"predict": [float(us) for us in range(101)], "bare encoder": [20.0] * 101})
    found = latency_routine.summary(samples)
    assert found["us"]["predict"] == {"p50": 50, "p95": 95, "p99": 99}
    assert found["added_us"] == 30


def test_a_quick_run_of_memory(tiny_bundle: Path, results: Path, capsys: Any) -> None:
    assert command_line.main(["memory", "--quick", "--bundle", str(tiny_bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    runs = stored["result"]["runs"]
    assert [run["texts"] for run in runs.values()] == [20, 100, 60, 60]
    assert [run["texts_a_call"] for run in runs.values()] == [20, 20, 60, 20]
    assert runs["many"]["tokens"] == runs["many, streamed"]["tokens"] > runs["few"]["tokens"]
    assert runs["few, five times"]["tokens"] == 5 * runs["few"]["tokens"]
    assert stored["result"]["times_warm"]["few, five times"] == 1
    for run in runs.values():
        assert 0 < run["loaded_rss_bytes"] <= run["peak_rss_bytes"]
    assert "| 60 | 20 |" in cpu_tables.memory(stored)


@pytest.mark.parametrize(
    "arguments",
    [
        ["memory", "--texts", "10"],
        ["memory", "--threads", "0"],
        ["latency", "--calls", "0"],
        ["latency", "--bundle", "none"],
        ["memory", "--bundle", "none"],
    ],
)
def test_what_cannot_be_is_said_first(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(arguments) == 1
    assert arguments[-1] in capsys.readouterr().err


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(child.ChildError, match="KeyError: 'texts'"):
        child.run("benchmarks.memory_child", {})


def test_peak_memory_is_this_process_s_own() -> None:
    before = rss.peak_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert rss.peak_bytes() >= max(before, rss.now_bytes())
    assert rss.now_bytes() > len(block)


def test_texts_are_mixed_and_come_again() -> None:
    found = texts.mixed(None, 200)
    assert found == texts.mixed(None, 200)
    lengths = sorted(len(text.split()) for text in found)
    assert lengths[0] * 5 < lengths[-1]


def test_texts_are_drawn_from_all_folders(tmp_path: Path) -> None:
    for name, header in (("a", "label\ttext"), ("b", "label\ttext_a\ttext_b")):
        (tmp_path / name).mkdir()
        second = "" if name == "a" else "\tz"
        rows = "".join(f"x\t{name} {i}{second}\n" for i in range(9))
        (tmp_path / name / "test.tsv").write_text(f"{header}\n{rows}", encoding="utf-8")
    found = texts.mixed(tmp_path, 6)
    assert len({*found}) == 6
    assert {text[0] for text in found} == {"a", "b"}
    assert len(texts.mixed(tmp_path, 40)) == 40
    assert len(texts.drawn(tmp_path, 6)) == 6
    with pytest.raises(Exception, match=r"no \*/test.tsv in it"):
        texts.drawn(tmp_path / "a", 6)


def test_columns_without_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "test.tsv").write_text("label\twords\nx\ty\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"a/test.tsv has the columns \['label', 'words'\]"):
        texts.drawn(tmp_path, 6)


def test_sizes_and_times_for_people() -> None:
    assert [size(n) for n in (8, 6400, 2_457_600, 3e9)] == ["8 B", "6.4 KB", "2.46 MB", "3 GB"]
    assert [duration(us) for us in (12.34, 4560, 2e6)] == ["12.3 us", "4.56 ms", "2 s"]
