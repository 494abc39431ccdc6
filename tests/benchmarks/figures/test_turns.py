"""Contenders take turns, and their samples are compared round by round."""

from __future__ import annotations

from benchmarks.figures import turns
from benchmarks.figures.turns import Contender, Samples, in_turn
from benchmarks.heads.cases import QUICK
from bitheads.engine import Quantization

SHAPE = QUICK.encoders["tiny"]
BOTH = [Quantization.SIGN, Quantization.UINT8]


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    contenders = {name: Contender(lambda n=name: calls.append(n), work=2) for name in "ab"}
    samples = in_turn(contenders, max_rounds=4, budget_s=60, min_sample_s=0)
    assert calls == ["a", "b"] * 5  # the first to warm up
    assert [len(values) for values in samples.values()] == [4, 4]
    assert len(in_turn(contenders, 50, budget_s=0, min_sample_s=0)["a"]) == turns.MIN_ROUNDS


def test_ratios_are_taken_round_by_round() -> None:
    samples = Samples({"slow": [20.0, 400.0, 30.0], "fast": [10.0, 100.0, 10.0]})
    assert samples.ratio("slow", "fast") == 3
    assert samples.summary("slow") == {"us": 30, "us_min": 20, "us_max": 400}
