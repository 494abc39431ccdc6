"""The options of a plan, and the profiles that it has by default."""

from __future__ import annotations

from typing import Any

import pytest
from plan_cases import ONE_PROFILE

from bitheads.engine.device.plan import Profile
from bitheads.engine.device.profile import choose_profile
from bitheads.export.errors import ExportError
from bitheads.export.plans.plan_config import (
    LATENCY_SEQ,
    MAX_TOKENS,
    PlanConfig,
    default_profiles,
)


@pytest.mark.parametrize("max_length", [5, 16, 32, 33, 64, 500, 512, 8192, 10_000])
def test_the_default_profiles_leave_no_gap(max_length: int) -> None:
    profiles = default_profiles(max_length)
    latency, *buckets = profiles
    assert latency == Profile((1, 1), (1, min(LATENCY_SEQ, max_length)), (1, max_length))
    assert [p.max[1] for p in buckets] == sorted({p.max[1] for p in buckets})
    assert buckets[-1].max[1] == max_length
    shortest = 1
    for index, bucket in enumerate(buckets, start=1):
        assert bucket.opt[0] * bucket.opt[1] >= MAX_TOKENS
        for seq in (shortest, bucket.max[1]):
            assert choose_profile(profiles, 1, seq) == 0, "a single text has its own"
            rows = max(2, MAX_TOKENS // max(seq, 16))
            assert choose_profile(profiles, rows, seq) == index, "chosen by length alone"
        shortest = bucket.max[1] + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flavour": "tensorrt_rtx"}, "--plan: got 'tensorrt_rtx', expected one of"),
        ({"capabilities": ("sm_86",)}, "got 'sm_86', expected a form like"),
        ({"capabilities": ("",)}, "got '', expected a form like"),
        ({"workspace_gib": 0}, "--plan-workspace: got 0, expected"),
        ({"workspace_gib": float("nan")}, "--plan-workspace: got nan, expected"),
        ({"precision": "fp16"}, "--plan-precision: got 'fp16', expected one of"),
        (
            {"precision": "fp8", "compatibility": ("ampere+",)},
            r"--plan-compatibility ampere\+: got --plan-precision fp8 with it",
        ),
        ({"compatibility": ("turing+",)}, "--plan-compatibility: compatibility: got"),
        ({"flavour": "none", "capabilities": ("8.6",)}, "--plan none: got other"),
        ({"flavour": "none", "compatibility": ("version",)}, "--plan none: got other"),
        ({"flavour": "none", "profiles": ONE_PROFILE}, "--plan none: got other"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        PlanConfig(**options)
