"""The parity report: what it counts, and when it fails a build."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_encoders import DIM

from bitheads.engine.bundle import read_manifest
from bitheads.engine.features.spec import Quantization
from bitheads.export.comparison.parity import MARGIN_BINS, Comparison, available_sessions, failures
from bitheads.export.config import MAX_RELATIVE_ERROR, MIN_SIGN_AGREEMENT, BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle


def test_the_report_of_a_build(tiny_bundle: Path, few_texts: Path) -> None:
    parity = read_manifest(tiny_bundle).parity
    assert parity["texts"] == len(few_texts.read_text(encoding="utf-8").splitlines())
    assert parity["tokens"] > 10 * parity["texts"]
    assert parity["odd_texts"] > 20
    assert list(parity["sessions"]) == [" ".join(session) for session in available_sessions()]
    for result in parity["sessions"].values():
        assert list(result["layers"]) == ["hidden_2", "hidden_3"]
        assert len(result["odd_texts"]) == parity["odd_texts"]
        assert {"[PAD] in a text", "an empty text", "a pair, cut"} <= set(result["odd_texts"])
        for counts in (result["pooled"], *result["layers"].values()):
            histogram = counts["margin_histogram"]
            assert len(histogram["signs"]) == len(histogram["flipped"]) == len(MARGIN_BINS)
            assert sum(histogram["signs"]) == parity["tokens"] * DIM
            flipped = sum(histogram["flipped"])
            agreement = 1 - flipped / (parity["tokens"] * DIM)
            assert counts["sign_agreement"] == pytest.approx(agreement, abs=1e-6)
            assert 0 < counts["max_abs_error"] < 0.2
            assert 0 < counts["relative_error"] < 0.02


def test_signs_flip_only_where_features_are_near_zero(tiny_bundle: Path) -> None:
    for result in read_manifest(tiny_bundle).parity["sessions"].values():
        histogram = result["pooled"]["margin_histogram"]
        edges = histogram["lower_edges_rms"]
        assert (
            sum(n for n, edge in zip(histogram["flipped"], edges, strict=True) if edge > 0.05) == 0
        )


def test_counts_by_hand() -> None:
    expected = np.array([[1, -1, 0.01, 0], [1, -1, -0.01, 2]], np.float32)
    got = np.array([[1.5, -1, -0.01, 0.001], [1, 1, -0.01, 2]], np.float32)
    counts = Comparison()
    counts.add(got, expected, 0.0)
    assert counts.total.sum() == 8
    # 0.01 is the whole of its feature, -1 too; 0 turned positive.
    assert counts.flipped.tolist() == [1, 0, 0, 0, 0, 0, 0, 2]
    assert counts.agreement == pytest.approx(1 - 3 / 8)
    assert counts.max_abs_error == 2
    squared_error, squared = 0.25 + 4 + 0.02**2 + 0.001**2, 8 + 2 * 0.01**2
    assert counts.relative_error == pytest.approx((squared_error / squared) ** 0.5)
    counts.add(expected, expected, 0.0)
    assert counts.agreement == pytest.approx(1 - 3 / 16)
    assert counts.relative_error == pytest.approx((squared_error / squared / 2) ** 0.5)


def test_counts_against_thresholds() -> None:
    thresholds = np.array([1, -1], np.float32)
    counts = Comparison()
    counts.add(np.array([[0.9, -0.9]], np.float32), np.array([[1.1, -1.1]], np.float32), thresholds)
    assert counts.flipped.sum() == 2
    counts.add(np.array([[5, 5]], np.float32), np.array([[2, 2]], np.float32), thresholds)
    assert counts.flipped.sum() == 2


def test_nothing_agrees_fully() -> None:
    assert Comparison().agreement == 1
    assert Comparison().relative_error == 0


def make_report(agreement: float, error: float) -> dict[str, Any]:
    return {
        "sessions": {
            "openvino bf16": {
                "pooled": {"sign_agreement": agreement, "relative_error": error},
                "layers": {
                    "hidden_1": {"sign_agreement": 0.9999, "relative_error": 0.001},
                    "hidden_2": {"sign_agreement": 0.95, "relative_error": 0.25},
                },
                "odd_texts": {},
            }
        }
    }


SIGNS, HALVES = BuildConfig(), BuildConfig(quantization=Quantization.FLOAT16)


def test_signs_are_held_to_their_agreement() -> None:
    (found,) = failures(make_report(0.99, 0.001), SIGNS)
    assert found.startswith("openvino bf16: 99.000% of signs agree with torch in fp32")
    assert "at least 99.70%; the worst layer is hidden_2, relative error 25.00%" in found
    assert failures(make_report(MIN_SIGN_AGREEMENT["bf16"], 9), SIGNS) == []


@pytest.mark.parametrize(
    ("signs", "flipped", "is_found"),
    [
        (640, 7, False),  # 2 * 1.92 + 3 * sqrt(1.92), where 3 of 1,000 may differ in all
        (640, 8, True),
        (640, 90, True),
        (196_608, 1251, False),
        (196_608, 1253, True),
        (0, 0, False),
    ],
)
def test_each_odd_text_is_held_to_the_bound(signs: int, flipped: int, is_found: bool) -> None:
    report = make_report(0.9999, 0.001)
    texts = {"a text": {"signs": signs, "flipped": flipped, "relative_error": 9.0}}
    texts["another"] = {"signs": 10_000, "flipped": 20, "relative_error": math.nan}
    report["sessions"]["openvino bf16"]["odd_texts"] = texts
    found = failures(report, SIGNS)
    assert len(found) == is_found
    if is_found:
        share = 1 - flipped / signs
        assert found[0].startswith(f"openvino bf16: {share:.3%} of the signs of one text agree")
        assert ": a text. Expected at least 9" in found[0]
        assert "(1 of 2 odd texts have fewer)" in found[0]
    assert failures(report, replace(SIGNS, min_sign_agreement=0.0)) == []
    assert failures(report, replace(SIGNS, min_sign_agreement=1.1))


@pytest.mark.parametrize(("error", "is_found"), [(0.06, False), (0.061, True), (math.nan, True)])
def test_each_odd_text_is_held_to_the_error(error: float, is_found: bool) -> None:
    report = make_report(0.9, 0.001)
    texts = {"a text": {"signs": 640, "flipped": 640, "relative_error": error}}
    report["sessions"]["openvino bf16"]["odd_texts"] = texts
    found = failures(report, HALVES)
    assert len(found) == is_found
    if is_found:
        assert "features of one text differ from torch in fp32 by" in found[0]
        assert ": a text. Expected at most 6.00% of each (1 of 1 odd texts have more)" in found[0]


@pytest.mark.parametrize("error", [0.031, 9, math.inf, math.nan])
def test_numbers_are_held_to_their_error(error: float) -> None:
    (found,) = failures(make_report(1, error), HALVES)
    assert "in the root mean square, expected at most 3.00%; the worst layer is hidden_2" in found
    assert failures(make_report(0, MAX_RELATIVE_ERROR["bf16"]), HALVES) == []


def test_the_bounds_may_be_replaced() -> None:
    report = make_report(0.99, 0.05)
    assert failures(report, replace(SIGNS, min_sign_agreement=0.98)) == []
    assert failures(report, replace(SIGNS, min_sign_agreement=0.0)) == []
    assert len(failures(report, replace(SIGNS, min_sign_agreement=1.0))) == 1
    assert failures(report, replace(HALVES, max_relative_error=0.06)) == []
    perfect = make_report(1, 0.001)
    assert len(failures(perfect, replace(HALVES, max_relative_error=0.0))) == 1


def test_numbers_too_far_from_the_source_fail_a_build(
    tiny_encoder: Callable[[str], Path], few_texts: Path, traced_once: None, tmp_path: Path
) -> None:
    config = BuildConfig(
        encoder=str(tiny_encoder("bert")),
        calibration=few_texts,
        quantization=Quantization.FLOAT16,
        max_relative_error=1e-9,
        output=tmp_path / "bundle",
    )
    with pytest.raises(ExportError, match="features differ from torch in fp32 by"):
        make_bundle(config)
    assert list(tmp_path.iterdir()) == []
