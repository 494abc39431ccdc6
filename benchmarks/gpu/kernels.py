"""pool_and_pack beside a copy of the same bytes, by events on the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.figures.rounding import rounded
from benchmarks.gpu.context import Bench, Gpu
from benchmarks.gpu.outcome import Outcome, Skip, attempt
from benchmarks.inputs.shapes import SHAPES as ENCODERS
from bitheads.engine import _kernels
from bitheads.engine.features import pack

SEQ = 64
DTYPES = {"float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Layers:
    """Hidden states that are far larger than any cache: 0.5 and 0.4 GB in float16."""

    num_layers: int
    dim: int
    tokens: int


SHAPES = {
    name: Layers(ENCODERS[name].pooled_layers, ENCODERS[name].dim, tokens)
    for name, tokens in (("RoBERTa-large", 16384), ("all-MiniLM-L6-v2", 131072))
}
MODES: dict[str, dict[str, Any]] = {
    "sign": {"quantization": "sign", "order": "pool_then_sign"},
    "sign, thresholds": {"quantization": "sign", "order": "pool_then_sign", "thresholds": True},
    "sign, weighted": {"quantization": "sign", "order": "pool_then_sign", "weighted": True},
    "sign, vote": {"quantization": "sign", "order": "sign_then_vote"},
    "uint8": {"quantization": "uint8", "order": "pool_then_sign", "calibrated": True},
    "float16": {"quantization": "float16", "order": "pool_then_sign"},
}


def pool_and_pack(
    gpu: Gpu, repeats: int, shapes: dict[str, Layers] | None = None
) -> dict[str, Outcome]:
    """Every shape, type and mode: GB of hidden states read per second, and times a copy of them.

    A copy reads and writes each byte, the kernel writes few: half a copy's time is the ideal.
    """
    return {
        f"{name}, {dtype}": attempt(
            f"  pool_and_pack, {name}, {dtype}", _of_shape, gpu, shape, dtype, repeats
        )
        for name, shape in (shapes or SHAPES).items()
        for dtype in DTYPES
    }


def _of_shape(gpu: Gpu, shape: Layers, dtype: str, repeats: int) -> dict[str, Any]:
    cuda = gpu.device.cuda
    dim, tokens = shape.dim, shape.tokens
    layer_bytes = tokens * dim * DTYPES[dtype]
    total = layer_bytes * shape.num_layers
    rows = tokens // SEQ
    lengths = np.full(rows, SEQ, np.int64)
    offsets = np.arange(rows, dtype=np.int64) * SEQ
    with gpu.device.current("timing pool_and_pack"):
        free, _ = cuda.mem_get_info()
        if free < 2 * total + (64 << 20):
            raise Skip(
                f"needs {2 * total / 1e9:.1f} GB of GPU memory, {free / 1e9:.1f} GB are free."
            )
        sizes = (total, total, tokens * dim * 2, lengths.nbytes, offsets.nbytes, 4 * dim, 4 * dim)
        with gpu.memory(*sizes) as (hidden, copied, codes, rows_at, offsets_at, first, second):
            # One layer of normals, in every layer: the speed does not depend on the values.
            values = np.random.default_rng(0).standard_normal(tokens * dim, np.float32)
            cuda.memcpy_htod(hidden, _as_bytes(values, dtype))
            for layer in range(1, shape.num_layers):
                cuda.memcpy_dtod(int(hidden) + layer * layer_bytes, int(hidden), layer_bytes)
            cuda.memcpy_htod(rows_at, lengths)
            cuda.memcpy_htod(offsets_at, offsets)
            cuda.memcpy_htod(first, np.full(dim, 0.1, np.float32))
            cuda.memcpy_htod(second, np.full(dim, 128, np.float32))
            copy_s = gpu.time_s(
                lambda: cuda.memcpy_dtod_async(int(copied), int(hidden), total, gpu.stream), repeats
            )
            modes = {}
            for mode, options in MODES.items():
                launch = _kernels.plan_pool_and_pack(
                    [int(hidden) + layer * layer_bytes for layer in range(shape.num_layers)],
                    dtype, rows, SEQ, dim, lengths, offsets,
                    int(rows_at), int(offsets_at), int(codes), tokens,
                    options["quantization"], options["order"],
                    np.full(shape.num_layers, 0.1, np.float32) if "weighted" in options else None,
                    thresholds=int(first) if "thresholds" in options else 0,
                    inverse_scale=int(first) if "calibrated" in options else 0,
                    zero_point=int(second) if "calibrated" in options else 0,
                )  # fmt: skip
                seconds = gpu.time_s(partial(gpu.code.launch, launch, gpu.stream), repeats)
                written = tokens * pack.code_bytes(dim, options["quantization"])
                modes[mode] = {
                    "kernel": launch[0],
                    "us": rounded(1e6 * seconds),
                    "gb_per_s": rounded((total + written) / seconds / 1e9),
                    "times_a_copy": rounded(seconds / copy_s),
                    "ns_per_token": rounded(1e9 * seconds / tokens),
                }
    return {
        "tokens": tokens,
        "bytes_read": total,
        "copy_us": rounded(1e6 * copy_s),
        "copy_gb_per_s": rounded(2 * total / copy_s / 1e9),  # read and written
        "modes": modes,
    }


def _as_bytes(values: np.ndarray, dtype: str) -> np.ndarray:
    """As the device holds them; of bfloat16 the upper halves, which is rounding towards zero."""
    if dtype == "bfloat16":
        return np.ascontiguousarray(values.view(np.uint16)[1::2])
    return values.astype(dtype)


def share_of_encoder(bench: Bench, budget: int = 16384) -> dict[str, Any]:
    """pool_and_pack's time over the encoder's, by the engine's own events, without CUDA graphs.

    On TensorRT; on ONNX Runtime where there is none.
    """
    from benchmarks.gpu.contenders import missing, open_uncaptured, require

    backend = "onnxruntime-cuda" if missing("tensorrt") else "tensorrt"
    require(backend)
    texts = bench.maker.random_texts(bench.repeats.texts)
    with open_uncaptured(bench, backend) as (engine, _):
        engine.encode(texts, max_batch_tokens=budget)
        stats = engine.encode(texts, max_batch_tokens=budget).stats
    return {
        "backend": backend,
        "encode_s": rounded(stats.encode_s),
        "pack_s": rounded(stats.pack_s),
        "share": rounded(stats.pack_s / stats.encode_s),
        "encoder_ns_per_token": rounded(1e9 * stats.encode_s / stats.num_tokens),
        "tokens": stats.num_tokens,
    }
