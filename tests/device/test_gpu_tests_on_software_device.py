"""The checks of tests/gpu on the software device, a few cases of each.

What a GPU would compute is not the point: a mistake in those tests must not wait for one to show.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import short_run
import test_gpu_engine
import test_gpu_heads
import test_gpu_pool_and_pack
import test_gpu_pool_positions
from kernel_cases import DTYPES, MODES
from on_gpu import OnGpu
from pooling_cases import with_embedding
from software_driver import SoftwareCuda

from benchmarks.gpu.context import Bench
from bitheads.engine import Engine, _kernels
from bitheads.engine.features.embedding import POOLINGS, Step
from bitheads.engine.types import Text


def test_pool_and_pack(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_gpu_pool_and_pack, "DIMS", (1, 65, 128))
    on_gpu = OnGpu(gpu)
    for dtype, mode in zip(DTYPES, MODES, strict=False):
        test_gpu_pool_and_pack.test_equal_to_the_reference(on_gpu, dtype, mode)
    test_gpu_pool_and_pack.test_every_kernel_runs(on_gpu)
    test_gpu_pool_and_pack.test_padding_is_never_read(on_gpu)


def test_pool_positions(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_gpu_pool_positions, "SHAPES", ((4, 20, 33),))
    for dtype, pooling in zip((*DTYPES, *DTYPES), POOLINGS, strict=True):
        test_gpu_pool_positions.test_equal_to_the_reference(gpu, dtype, pooling)


@pytest.mark.parametrize(("shift", "message"), [(-1, "before its codes"), (1, "past its codes")])
def test_stray_writes_are_seen(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, shift: int, message: str
) -> None:
    plan, codes = _kernels.plan_pool_and_pack, 9  # the argument's place

    def plan_shifted(*arguments: Any, **constants: Any) -> Any:
        shifted = (*arguments[:codes], arguments[codes] + shift, *arguments[codes + 1 :])
        return plan(*shifted, **constants)

    monkeypatch.setattr(_kernels, "plan_pool_and_pack", plan_shifted)
    with pytest.raises(AssertionError, match=message):
        test_gpu_pool_and_pack.test_padding_is_never_read(OnGpu(gpu))


@pytest.mark.parametrize("quantization", ["sign", "uint8", "float16"])
def test_heads_of_each_pooling(gpu: Any, quantization: str) -> None:
    test_gpu_heads.test_one_head_of_each_pooling(gpu, quantization, 64)


def test_several_heads(gpu: Any) -> None:
    spec = test_gpu_heads.make_spec("sign", 64)
    features = test_gpu_heads.make_features(spec, [3, 1, 20])
    heads = [test_gpu_heads.random_head(spec, f"task-{i}", classes=2 + i) for i in range(5)]
    test_gpu_heads.check(gpu, features, heads)


@pytest.mark.usefixtures("software_cuda", "device_code")
def test_the_sanitizers_run(capsys: pytest.CaptureFixture[str]) -> None:
    short_run.main()
    assert "every kernel ran" in capsys.readouterr().out


class SmallBench(Bench):
    @cached_property
    def shipped_texts(self) -> list[Text]:
        return super().shipped_texts[::40]


@pytest.fixture
def bench(planned_bundle: Path) -> Bench:
    return SmallBench(planned_bundle, "")


@pytest.mark.usefixtures("tensorrt_in_software")
def test_the_engine(bench: Bench, planned_bundle: Path, gpu: Any) -> None:
    checks = test_gpu_engine
    with (
        Engine.load(planned_bundle, backend="tensorrt") as engine,
        Engine.load(planned_bundle, backend="onnxruntime") as on_cpu,
    ):
        texts = bench.shipped_texts
        assert checks.agreement(engine.encode(texts), on_cpu.encode(texts)) == 1
        # Tiny encoders differ from run to run, and few texts may have a tie among them.
        checks.check_labels(engine.predict(texts), on_cpu.predict(texts), most=0.1)
        checks.test_stored_codes_are_answered_as_texts_are(bench, engine)
        checks.test_every_length(bench, engine, on_cpu)
        checks.test_the_same_bits_again(bench, engine)
        checks.test_batches_do_not_matter(bench, engine)
        checks.test_threads_take_turns(bench, engine)


@pytest.mark.usefixtures("tensorrt_in_software")
def test_the_engine_s_embeddings(planned_bundle: Path, gpu: Any, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    with_embedding(planned_bundle, folder, ("mean",), (Step("normalize"),))
    with (
        Engine.load(folder, backend="tensorrt") as engine,
        Engine.load(folder, backend="onnxruntime") as on_cpu,
    ):
        test_gpu_engine.test_embeddings_of_the_cpu(SmallBench(folder, ""), engine, on_cpu)


@pytest.mark.usefixtures("tensorrt_in_software")
def test_loading_engines(
    bench: Bench,
    planned_bundle: Path,
    software_cuda: SoftwareCuda,
    gpu: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    software_cuda.set_total_memory(32 << 20)  # a tiny encoder's GPU
    monkeypatch.setattr(test_gpu_engine, "MB", 1 << 17)
    test_gpu_engine.test_auto_takes_the_gpu(planned_bundle, "tensorrt", gpu)
    test_gpu_engine.test_cuda_graphs_change_nothing(
        bench, planned_bundle, "tensorrt", gpu, monkeypatch
    )
    test_gpu_engine.test_loading_and_closing_leaks_nothing(bench, planned_bundle, "tensorrt", gpu)
    test_gpu_engine.test_little_memory_means_smaller_calls_or_a_clear_error(
        bench, planned_bundle, "tensorrt", gpu
    )
