"""A budget of signs in place of a precision: the C++ host takes what Python takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_host_errors import refused
from test_sign_agreement import measured

from benchmarks.contenders.host_library import HostEngine, HostError, HostLibrary
from bitheads import BackendError, Engine
from bitheads.engine.bundle import MANIFEST, Manifest, read_manifest
from bitheads.engine.sessions import supports_bf16, tuning
from bitheads.engine.sessions.agreement import within

BUDGETS = (0.9, 0.992, 0.9921, 0.998, 0.999, 0.9999, 1.0)

REPORTS = {
    "bf16 measured": {
        "openvino_fp32": 0.9998,
        "openvino_bf16": 0.9985,
        "openvino_int8_dynamic": 0.992,
        "onnxruntime_fp32": 0.9997,
    },
    "bf16 not measured": {"openvino_fp32": 0.9998, "openvino_int8_dynamic": 0.992},
    "int8 alone is exact": {"openvino_fp32": 0.9, "openvino_bf16": 0.9, "openvino_int8_dynamic": 1},
    "of another backend alone": {"onnxruntime_fp32": 0.9997},
}


@pytest.fixture(scope="module")
def bundle(
    build_bundle: Callable[..., Path], add_host_parts: Callable[[Path], Path]
) -> tuple[Path, Manifest]:
    """With a graph in int8_dynamic, and its manifest as it was built: tests write it anew."""
    folder = add_host_parts(build_bundle("bert", precision="int8_dynamic"))
    return folder, read_manifest(folder)


def write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.dumps(), encoding="utf-8")


def by_python(folder: Path, asked: float) -> str:
    """The backend that it takes of OpenVINO, or its error."""
    try:
        with Engine.load(folder, "openvino", min_sign_agreement=asked) as engine:
            return engine.backend
    except BackendError as error:
        return f"backend: {error}"


def by_host(library: HostLibrary, folder: Path, asked: float) -> str:
    try:
        with HostEngine(library, folder, min_sign_agreement=asked) as host:
            return host.backend
    except HostError as error:
        return f"{error.status}: {error}"


@pytest.mark.parametrize("name", ["as it was built", *REPORTS])
def test_it_chooses_as_python_does(
    bundle: tuple[Path, Manifest], library: HostLibrary, name: str
) -> None:
    """Where times decide between two of one size on a busy machine, it is one of the two."""
    folder, manifest = bundle
    if name in REPORTS:
        manifest = measured(manifest, **REPORTS[name])
    write(folder, manifest)
    certain = 0
    for asked in BUDGETS:
        got = by_host(library, folder, asked)
        try:
            choices = within(tuning.ways("openvino", "auto"), manifest, asked)
        except BackendError:
            choices = []
        if len(choices) > 1:
            assert got in {" ".join(way) for way in choices}
        else:
            assert got == by_python(folder, asked)
            certain += 1
    assert certain > 1


def test_the_fastest_within_it_is_taken(
    bundle: tuple[Path, Manifest], library: HostLibrary
) -> None:
    """What is chosen runs, in lanes too, and gives the codes of that precision by its name."""
    folder, manifest = bundle
    exact = measured(manifest, openvino_fp32=0.9, openvino_bf16=0.9, openvino_int8_dynamic=0.99)
    write(folder, exact)
    texts = [f"The tide was out, and {i} sailors" for i in range(400)]
    options = {"threads": 2, "max_batch_tokens": 64}
    with HostEngine(library, folder, min_sign_agreement=0.99, **options) as chosen:
        assert chosen.backend == "openvino int8_dynamic"
        got = chosen.encode(texts[:1])
        assert len(chosen.encode(texts).offsets) == 401
    with HostEngine(library, folder, "int8_dynamic", **options) as named:
        np.testing.assert_array_equal(got.codes, named.encode(texts[:1]).codes)


def test_nothing_changes_unasked(bundle: tuple[Path, Manifest], library: HostLibrary) -> None:
    folder, manifest = bundle
    write(folder, measured(manifest, openvino_fp32=0.99, openvino_int8_dynamic=1.0))
    with HostEngine(library, folder) as host:
        assert host.backend == f"openvino {'bf16' if supports_bf16('openvino') else 'fp32'}"


@pytest.mark.parametrize("asked", [-0.5, 1.01, float("nan"), float("inf"), 1e-400 - 1e-9])
def test_what_is_no_share_is_refused(library: HostLibrary, host_bundle: Path, asked: float) -> None:
    with pytest.raises(BackendError) as by_python:
        Engine.load(host_bundle, min_sign_agreement=asked)
    with refused("invalid_input", str(by_python.value).replace("None", "none")):
        HostEngine(library, host_bundle, min_sign_agreement=asked)


def test_a_precision_leaves_nothing_to_choose(library: HostLibrary, host_bundle: Path) -> None:
    with pytest.raises(BackendError) as by_python:
        Engine.load(host_bundle, precision="fp32", min_sign_agreement=0.98)
    with refused("invalid_input", str(by_python.value)):
        HostEngine(library, host_bundle, "fp32", min_sign_agreement=0.98)


@pytest.mark.parametrize(
    "parity",
    [{}, {"sessions": []}, {"sessions": {"openvino fp32": None}}]
    + [{"sessions": {"openvino fp32": {"pooled": pooled}}} for pooled in ({}, [], "no")],
)
def test_what_was_not_measured_is_refused(
    library: HostLibrary, own_host_bundle: Path, parity: dict[str, object]
) -> None:
    write(own_host_bundle, replace(read_manifest(own_host_bundle), parity=parity))
    expected = by_python(own_host_bundle, 0.98)
    assert "says of none of its sessions how many signs agree" in expected
    assert by_host(library, own_host_bundle, 0.98) == expected
