"""Every kernel, in a run short enough for compute-sanitizer, which slows it a hundredfold."""

from __future__ import annotations

from functools import partial

import numpy as np
from kernel_cases import DTYPES, MODES, check_runs, make_layers, make_options
from on_gpu import OnGpu
from pooling_cases import make_states
from random_heads import random_head
from test_gpu_heads import check, make_features, make_spec

from benchmarks.gpu.context import Gpu, open_gpu
from bitheads.engine.features.embedding import POOLINGS


def main() -> None:
    with open_gpu() as gpu:
        _pool_and_pack(gpu)
        _pool_positions(gpu)
        for quantization in ("sign", "uint8", "float16"):
            spec = make_spec(quantization, 64)
            heads = [random_head(spec, f"task-{i}", seed=i) for i in range(5)]
            check(gpu, make_features(spec, [1, 17, 70]), heads)
    print("every kernel ran")


def _pool_and_pack(gpu: Gpu) -> None:
    on_gpu = OnGpu(gpu)
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        for mode in MODES:
            for dim in (65, 264):
                layers = make_layers(rng, 5, (2, 5, dim), dtype)
                runs = {
                    str(shift): partial(on_gpu.pool_and_pack, shift_bytes=shift) for shift in (0, 4)
                }
                options = make_options(rng, mode, 5, dim)
                check_runs(runs, layers, np.array([5, 2]), np.array([2, 0]), options)


def _pool_positions(gpu: Gpu) -> None:
    on_gpu = OnGpu(gpu)
    for dtype in DTYPES:
        states = make_states(np.random.default_rng(0), (3, 19, 130), dtype)
        for pooling in POOLINGS:
            on_gpu.pool_positions(states, np.array([19, 0, 3]), pooling)


if __name__ == "__main__":
    main()
