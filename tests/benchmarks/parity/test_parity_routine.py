"""A bundle is compared with its source model, and with no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.parity import table


def test_a_run_is_stored(
    tiny_bundle: Path, tiny_encoder: Callable[[str], Path], tmp_path: Path, results: Path
) -> None:
    test = tmp_path / "data" / "a" / "test.tsv"
    test.parent.mkdir(parents=True)
    rows = "".join(f"x\tText {i}, which is read.\n" for i in range(9))
    test.write_text(f"label\ttext\n{rows}", encoding="utf-8")
    options = ["--bundle", str(tiny_bundle), "--encoder", str(tiny_encoder("bert"))]
    options += ["--data", str(tmp_path / "data"), "--texts", "5"]
    assert command_line.main(["parity", *options]) == 0
    stored = record.read("parity")
    assert stored["command"] == "python -m benchmarks parity --data DIR"
    assert stored["result"]["texts"] == 5
    for session in stored["result"]["sessions"].values():
        assert session["pooled"]["sign_agreement"] > 0.9
    shown = table.measured(stored)
    assert "| openvino fp32 | " in shown
    assert "5 real texts, " in shown


def test_another_encoder_is_refused(
    tiny_bundle: Path,
    tiny_encoder: Callable[[str], Path],
    results: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--bundle", str(tiny_bundle), "--encoder", str(tiny_encoder("roberta"))]
    assert command_line.main(["parity", *options]) == 1
    assert "its weights are not those of bundle" in capsys.readouterr().err
