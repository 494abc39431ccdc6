"""int8_dynamic where it is asked for, and `auto` with a budget of signs in place of a precision."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_encode import texts_of_all_lengths

from bitheads import BackendError, Engine
from bitheads.engine.bundle import MANIFEST, QUANTIZED_GRAPHS, Manifest, read_manifest
from bitheads.engine.commands import predict
from bitheads.engine.sessions import agreement, supports_bf16, tuning
from bitheads.engine.sessions import openvino as openvino_session
from bitheads.engine.sessions.agreement import FLOATING_POINT, within

MAX_CHANGED_BY_BATCH = 0.004
"""Share of bits that may depend on the other texts of a batch: 0.0005 were seen to with
all-MiniLM-L6-v2."""

FLOATS = [("openvino", "fp32"), ("onnxruntime", "fp32")]


@pytest.fixture(scope="module")
def dynamic_bundle(build_bundle: Callable[..., Path]) -> Path:
    """Not to be written to."""
    return build_bundle("bert", precision="int8_dynamic")


def different(codes: Any, others: Any) -> float:
    return float(np.unpackbits(codes ^ others).mean())


def measured(manifest: Manifest, **shares: float) -> Manifest:
    """With other shares of signs, by backend and precision: openvino_fp32=0.99."""
    sessions = {
        name.replace("_", " ", 1): {"pooled": {"sign_agreement": share}}
        for name, share in shares.items()
    }
    return replace(manifest, parity={"sessions": sessions})


def test_it_is_what_was_asked_for(
    dynamic_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path))
    texts = texts_of_all_lengths()
    with Engine.load(dynamic_bundle, "openvino", precision="fp32") as engine:
        exact = engine.encode(texts).codes
    with Engine.load(dynamic_bundle, precision="int8_dynamic") as engine:
        assert engine.backend == "openvino int8_dynamic"
        together = engine.encode(texts).codes
        alone = np.concatenate([engine.encode([text]).codes for text in texts])
    assert 0 < different(together, exact) < 0.02
    assert different(alone, together) <= MAX_CHANGED_BY_BATCH
    with Engine.load(dynamic_bundle, precision="int8_dynamic") as engine:  # out of the cache
        assert (engine.encode(texts).codes == together).all()


def test_activations_are_rounded(dynamic_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only weights, where the processor has dot products of bytes."""
    texts = texts_of_all_lengths()
    with Engine.load(dynamic_bundle, precision="int8_dynamic") as engine:
        rounded = engine.encode(texts).codes
    monkeypatch.setattr(openvino_session, "INT8_GROUP", 0)
    with Engine.load(dynamic_bundle, precision="int8_dynamic") as engine:
        weights_only = engine.encode(texts).codes
    with Engine.load(dynamic_bundle, "openvino", precision="fp32") as engine:
        exact = engine.encode(texts).codes
    assert 0 < different(weights_only, exact) <= different(rounded, exact)
    assert (rounded != weights_only).any() == ("vnni" in Path("/proc/cpuinfo").read_text())


@pytest.mark.parametrize("precision", QUANTIZED_GRAPHS)
def test_a_bundle_without_it_says_how_to_make_it(tiny_bundle: Path, precision: str) -> None:
    with pytest.raises(BackendError, match=rf"has no encoder_{precision}\.xml.*build --precision"):
        Engine.load(tiny_bundle, precision=precision)


def test_nothing_changes_unasked(dynamic_bundle: Path, tiny_bundle: Path) -> None:
    share = read_manifest(dynamic_bundle).sign_agreement("openvino", "int8_dynamic")
    assert share is not None
    assert share > FLOATING_POINT  # and yet
    with Engine.load(dynamic_bundle) as engine, Engine.load(tiny_bundle) as plain:
        assert engine.backend == plain.backend


def test_what_agrees_may_be_taken(dynamic_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "supports_bf16", lambda backend: False)
    manifest = measured(
        read_manifest(dynamic_bundle),
        openvino_fp32=0.9998,
        onnxruntime_fp32=0.9997,
        openvino_int8_dynamic=0.992,
    )
    dynamic = ("openvino", "int8_dynamic")
    assert within(FLOATS, manifest, 0.99) == [*FLOATS, dynamic]
    assert within(FLOATS, manifest, 0.992) == [*FLOATS, dynamic]
    assert within(FLOATS, manifest, 0.9921) == FLOATS
    assert within(FLOATS[1:], manifest, 0.99) == FLOATS[1:]
    coarse = measured(manifest, openvino_fp32=0.98, openvino_int8_dynamic=0.992)
    assert within(FLOATS[:1], coarse, 0.99) == [dynamic]


def test_more_than_floating_point_keeps(
    dynamic_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 must have been measured, by a build on a machine that has it."""
    monkeypatch.setattr(agreement, "supports_bf16", lambda backend: backend == "openvino")
    manifest = read_manifest(dynamic_bundle)
    both = measured(manifest, openvino_bf16=0.9985, openvino_fp32=0.9998)
    assert within(FLOATS[:1], both, 0.998) == [("openvino", "bf16"), ("openvino", "fp32")]
    assert within(FLOATS[:1], both, 0.999) == [("openvino", "fp32")]
    no_bf16 = measured(manifest, openvino_fp32=0.9998)
    assert within(FLOATS[:1], no_bf16, FLOATING_POINT) == [
        ("openvino", "bf16"),
        ("openvino", "fp32"),
    ]
    assert within(FLOATS[:1], no_bf16, 0.998) == [("openvino", "fp32")]
    with pytest.raises(BackendError, match=r"the shares were: 0\.99980 openvino fp32\. Ask for"):
        within(FLOATS, no_bf16, 0.9999)


def test_the_fastest_within_it_is_loaded(
    dynamic_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path))
    seconds = {"int8_dynamic": 1.0}
    monkeypatch.setattr(
        tuning, "_time", lambda session, longest: seconds.get(session.precision, 2.0)
    )
    texts = texts_of_all_lengths()[:20]
    with Engine.load(dynamic_bundle, min_sign_agreement=0.98) as engine:
        assert engine.backend == "openvino int8_dynamic"
        found = engine.encode(texts).codes
    with Engine.load(dynamic_bundle, precision="int8_dynamic") as engine:
        assert (engine.encode(texts).codes == found).all()
    with Engine.load(dynamic_bundle) as engine:
        assert engine.backend.split()[1] in ("fp32", "bf16")
    with Engine.load(dynamic_bundle, "openvino", min_sign_agreement=0.999) as engine:
        assert engine.backend == "openvino fp32" or supports_bf16("openvino")


@pytest.mark.parametrize("asked", [0, -0.5, 1.01, float("nan"), "0.99", True])
def test_what_is_no_share_is_refused(tiny_bundle: Path, asked: Any) -> None:
    with pytest.raises(BackendError, match=r"min_sign_agreement: got .* over 0 and up to 1"):
        Engine.load(tiny_bundle, min_sign_agreement=asked)


def test_what_was_not_measured_is_refused(own_bundle: Path) -> None:
    manifest = read_manifest(own_bundle)
    (own_bundle / MANIFEST).write_text(replace(manifest, parity={}).dumps(), encoding="utf-8")
    with pytest.raises(BackendError, match=r"says of none of its sessions how many signs agree"):
        Engine.load(own_bundle, min_sign_agreement=0.98)
    Engine.load(own_bundle).close()


def test_a_precision_leaves_nothing_to_choose(tiny_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"got 0\.98 with precision 'fp32', expected one"):
        Engine.load(tiny_bundle, precision="fp32", min_sign_agreement=0.98)


def test_the_command_line_asks_for_it(
    dynamic_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--bundle", str(dynamic_bundle), "--demo", "--min-sign-agreement", "1.5"]
    assert predict.main(asked) == 1
    assert "min_sign_agreement: got 1.5, expected a share" in capsys.readouterr().err


def test_a_malformed_report_measures_nothing(dynamic_bundle: Path) -> None:
    manifest = read_manifest(dynamic_bundle)
    for sessions in ([], {"openvino fp32": None}, {"openvino fp32": {"pooled": {}}}):
        odd = replace(manifest, parity=json.loads(json.dumps({"sessions": sessions})))
        assert odd.sign_agreement("openvino", "fp32") is None
