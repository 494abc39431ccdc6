"""The C++ host where memory is short or calls fail: smaller calls, or a status, nothing left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from formula_sessions import FormulaPlugin
from formula_texts import SINGLES, TEXTS, assert_same_codes
from software_driver import LAUNCH_FAILED, SoftwareCuda
from test_host_errors import refused

from benchmarks.contenders.host_library import HostEngine, HostError
from bitheads import PackedFeatures

OpenEngine = Callable[..., HostEngine]

LOST = ("device_allocations", "host_allocations", "streams", "events", "modules", "graph_execs")
"""What a lost device does not give back."""


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_memory_that_runs_out_means_smaller_calls(
    open_engine: OpenEngine, formula: FormulaPlugin, expected: PackedFeatures, failures: int
) -> None:
    """Of what is left, too, which was cut for the larger calls that were."""
    engine = open_engine()
    formula.set(no_memory=failures)
    assert_same_codes(engine.encode(TEXTS), expected)
    formula.set(no_memory=99)
    with refused("device_memory", "the arena is full", "smaller max_batch_tokens"):
        engine.encode(TEXTS)
    formula.set(no_memory=0)
    assert_same_codes(engine.encode(TEXTS), expected)


def test_little_memory_means_smaller_calls(
    open_engine: OpenEngine, expected: PackedFeatures, software_cuda: SoftwareCuda
) -> None:
    with open_engine() as roomy:
        roomy.encode(TEXTS)
    peak = software_cuda.counter("device_bytes_peak")
    software_cuda.set_total_memory(peak // 3)
    software_cuda.reset_counters()
    engine = open_engine()
    assert_same_codes(engine.encode(TEXTS), expected)
    assert software_cuda.counter("device_bytes_peak") <= peak // 3
    engine.close()
    software_cuda.set_total_memory(20_000)
    with refused("device_memory", "no memory left while allocating the encoder's buffers"):
        open_engine()


@pytest.mark.parametrize(
    ("name", "after"),
    [
        *(("cuMemAlloc", after) for after in range(7)),
        *(("cuMemAllocHost", after) for after in range(6)),
        *(("cuEventCreate", after) for after in range(2)),
        ("cuStreamCreate", 0),
        ("cuModuleLoadData", 0),
    ],
)
def test_loading_that_fails_leaves_nothing_behind(
    open_engine: OpenEngine, software_cuda: SoftwareCuda, name: str, after: int
) -> None:
    """As often as buffers would shrink; the driver then looks for leaks."""
    status = {"cuModuleLoadData": 209}.get(name, 2)
    software_cuda.fail(name, after_calls=after, times=99, status=status)
    with pytest.raises(HostError, match=r"no memory left|the GPU failed while loading the device"):
        open_engine()


def test_heads_for_which_there_is_no_memory(
    open_engine: OpenEngine, software_cuda: SoftwareCuda
) -> None:
    """Other sets of heads make room; where that is not enough it is an error, and goes away."""
    engine = open_engine()
    exact = engine.predict(SINGLES, ["attends"])["attends"].logits
    software_cuda.fail("cuMemAlloc")
    assert engine.predict(SINGLES, ["averages"])["averages"].logits.shape[1] == 3
    software_cuda.fail("cuMemAlloc", times=9)
    with refused("device_memory", "no memory left while running the encoder"):
        engine.predict(SINGLES, ["last"])
    software_cuda.fail("cuMemAlloc", status=0)  # no more failures
    np.testing.assert_array_equal(engine.predict(SINGLES, ["attends"])["attends"].logits, exact)


def test_a_failing_batch_leaves_the_engine_usable(
    open_engine: OpenEngine,
    formula: FormulaPlugin,
    expected: PackedFeatures,
    software_cuda: SoftwareCuda,
) -> None:
    engine = open_engine(max_batch_tokens=40)
    formula.set(fail_enqueue=1)
    with refused("backend", "formula fp16 failed on a batch of", "an unsupported shape"):
        engine.encode(TEXTS)
    assert_same_codes(engine.encode(TEXTS), expected)
    software_cuda.fail("cuMemcpyHtoDAsync", after_calls=2, status=1)
    with refused("backend", "failed while running the encoder", "nvidia-smi"):
        engine.encode(TEXTS)
    assert_same_codes(engine.encode(TEXTS), expected)


def test_a_device_that_is_lost(open_engine: OpenEngine, software_cuda: SoftwareCuda) -> None:
    """Every call says so from then on, and the engine can still be let go of."""
    engine = open_engine()
    software_cuda.fail("execution", status=LAUNCH_FAILED)
    for _ in range(2):
        with refused("backend", "CUDA_ERROR_LAUNCH_FAILED", "start the program again"):
            engine.encode(TEXTS)
    engine.close()
    software_cuda.ignored.update(LOST)
