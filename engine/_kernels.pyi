"""The native kernels. What each computes, to the bit, is in kernels/SPEC.md."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TEXT_TOKENS: int
MAX_VECTOR_SIZE: int

def abi_version() -> int: ...
def active_level() -> str: ...
def levels() -> list[str]: ...
def supported_levels() -> list[str]: ...
def round_lengths(
    lengths: NDArray[np.int64], max_length: int, rounded: NDArray[np.int64]
) -> None: ...
def cut_batches(
    lengths: NDArray[np.int64],
    max_batch_tokens: int,
    call_tokens: int,
    order: NDArray[np.int64],
    batch_offsets: NDArray[np.int64],
) -> int: ...
def combine_texts(
    vectors: NDArray[np.float32], pairs: NDArray[np.int64], codes: NDArray[np.uint8]
) -> None: ...
def best_tags(
    logits: NDArray[np.float32], offsets: NDArray[np.int64], tags: NDArray[np.int64]
) -> None: ...
def label_probabilities(
    logits: NDArray[np.float32], offsets: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> None: ...
def code_bytes(dim: int, quantization: str) -> int: ...
def pool_and_pack(
    layers: Sequence[NDArray[Any]],
    bfloat16: bool,
    lengths: NDArray[np.int64],
    token_offsets: NDArray[np.int64],
    codes: NDArray[np.uint8],
    quantization: str,
    order: str,
    layer_weights: NDArray[np.float32] | None = None,
    thresholds: NDArray[np.float32] | None = None,
    inverse_scale: NDArray[np.float32] | None = None,
    zero_point: NDArray[np.float32] | None = None,
    level: str = "active",
) -> None: ...
def head_bytes(
    quantization: str,
    position_pooling: str,
    dim: int,
    attention_heads: int,
    inner: int,
    classes: int,
) -> int: ...
def lay_out_head(
    head: NDArray[np.uint8],
    quantization: str,
    position_pooling: str,
    query: NDArray[np.float32] | None,
    value: NDArray[np.float32] | None,
    dense: NDArray[np.float32],
    dense_bias: NDArray[np.float32],
    output: NDArray[np.float32],
    output_bias: NDArray[np.float32],
    level: str = "active",
) -> None: ...
def floats_of_halves(
    halves: NDArray[np.float16], floats: NDArray[np.float32], level: str = "active"
) -> None: ...
def predict_heads_workspace(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    dim: int,
    quantization: str,
    heads: Sequence[NDArray[np.uint8]],
) -> int: ...
def predict_heads(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    dim: int,
    quantization: str,
    heads: Sequence[NDArray[np.uint8]],
    logits: Sequence[NDArray[np.float32]],
    workspace: NDArray[np.uint8],
    level: str = "active",
) -> None: ...
def run_dot_products(level: str, multiply_adds: int) -> int: ...

Launch = tuple[str, tuple[int, int, int], tuple[int, int, int], int, bytes]
"""Kernel, grid, block, bytes of dynamic shared memory, the kernel's one argument."""

def plan_pool_and_pack(
    layers: Sequence[int],
    dtype: str,
    rows: int,
    seq: int,
    dim: int,
    lengths: NDArray[np.int64],
    token_offsets: NDArray[np.int64],
    device_lengths: int,
    device_token_offsets: int,
    codes: int,
    num_tokens: int,
    quantization: str,
    order: str,
    layer_weights: NDArray[np.float32] | None = None,
    thresholds: int = 0,
    inverse_scale: int = 0,
    zero_point: int = 0,
) -> Launch: ...
def plan_pool_positions(
    states: int,
    dtype: str,
    rows: int,
    seq: int,
    dim: int,
    lengths: NDArray[np.int64],
    device_lengths: int,
    pooling: str,
    pooled: int,
    pooled_stride: int,
) -> Launch: ...
def pooled_dim(dim: int) -> int: ...
def lay_out_queries(queries: NDArray[np.float32], quantization: str) -> tuple[bytes, bytes]: ...
def lay_out_dense(weights: NDArray[np.float32]) -> tuple[bytes, bytes]: ...
def plan_attention_pool(
    codes: int,
    offsets: int,
    texts: int,
    quantization: str,
    dim: int,
    columns: int,
    queries: int,
    column_scale: int,
    end_bias: int,
    pooled: int,
) -> Launch: ...
def plan_grouped_dense(
    groups: int, num_groups: int, largest_n: int, texts: int, kind: str
) -> Launch: ...
