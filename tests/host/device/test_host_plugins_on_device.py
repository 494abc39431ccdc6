"""ONNX Runtime's plugin behind the whole C++ host, on the software device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from formula_texts import SINGLES, TEXTS
from plugin_build import build_plugins
from software_driver import SoftwareCuda

from benchmarks.contenders.host_library import HostEngine
from bitheads import Engine

LIBRARY = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))


def test_codes_and_answers_are_pythons(
    open_engine: Callable[..., HostEngine],
    host_bundle: Path,
    software_cuda: SoftwareCuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the same graph on the same ONNX Runtime, in any order of the streams, in other batches."""
    monkeypatch.setenv("BITHEADS_ONNXRUNTIME_LIBRARY", str(LIBRARY))
    with Engine.load(host_bundle, backend="onnxruntime") as on_cpu:
        expected = on_cpu.encode(TEXTS)
        answers = on_cpu.predict(SINGLES)
    plugins = build_plugins("")  # sanitized ones cannot be loaded into Python
    engine = open_engine(backend="onnxruntime-cpu", plugins=plugins, max_batch_tokens=128)
    assert engine.backend == "onnxruntime-cpu fp16"
    for seed in range(3):
        software_cuda.set_random(seed)
        found = engine.encode(TEXTS)
        np.testing.assert_array_equal(found.offsets, expected.offsets)
        differing = np.unpackbits(found.codes ^ expected.codes).mean()
        assert differing < 1e-3
    assert software_cuda.counter("graph_launches") > 0
    for task, answer in engine.predict(SINGLES).items():
        np.testing.assert_allclose(answer.probabilities, answers[task].probabilities, atol=3e-3)
