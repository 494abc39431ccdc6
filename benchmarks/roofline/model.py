"""How long each kernel must take on a GPU, from its bytes and operations: a model, no measurement.

Work is counted per token of a full batch without padding. A stage's time is that of the resource
it needs longest, at the fraction of the published peak that such code reaches (`Fractions`):
matrix products on tensor cores, other arithmetic, device memory, second-level cache. The encoder
as a whole is one stage, as if its memory traffic were hidden perfectly behind its products: that
makes it fast, and the shares of everything else large. Launches and latency are left out, so
nothing here holds for a single short text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from benchmarks.figures.rounding import rounded
from benchmarks.inputs.shapes import CLASSES, SHAPES, TEXT_TOKENS, Shape
from bitheads.engine.device import heads
from bitheads.export.device_code import ARCHITECTURES

FP16_BYTES, FP32_BYTES = 2, 4
BATCH_TOKENS = 16384
"""Tokens of a full batch: engine.device.encoder.MAX_BATCH_TOKENS."""
TASK_COUNTS = (1, 14, 100, 1000)
CALL_TEXTS = BATCH_TOKENS // TEXT_TOKENS

# Tiles of kernels/cuda; a test compares them with its sources.
GROUP_COLUMNS, SLICE_DIM, UNIT_DIM, SIGN_DIM = 16, 1024, 32, 128
TILE_TOKENS = 64  # of signs
SCORE_TOKENS, POOL_TOKENS = TILE_TOKENS // 2, 16  # a tile's tokens are rounded up to these
FRAGMENT_READERS = 2  # warps of a block that read each query fragment
DENSE_TEXTS, DENSE_OUTPUTS, DENSE_DEPTH = 64, 64, 32
WARP_TEXTS, FEW_OUTPUTS = 16, DENSE_OUTPUTS // 2  # a tile's are rounded up to these


@dataclass(frozen=True)
class Gpu:
    """Published peaks.

    Attributes:
        compute_capability: such as "9.0".
        tensor_tflops: dense fp16 products with fp32 sums, 10^12 operations per second.
        fp32_tflops: outside the tensor cores, a multiply-add being two operations.
        memory_gb_per_s: device memory. pcie_gb_per_s: one direction of the bus.
    """

    compute_capability: str
    tensor_tflops: float
    fp32_tflops: float
    memory_gb_per_s: float
    pcie_gb_per_s: float

    @property
    def is_compiled_for(self) -> bool:
        """Whether the device code that is shipped has machine code for it."""
        return f"sm_{self.compute_capability.replace('.', '')}" in ARCHITECTURES


GPUS = {
    # NVIDIA H100 Tensor Core GPU data sheet, H100 SXM: 1,979 teraFLOPS FP16 "with sparsity", half
    # of it without (989.4 in the H100 architecture whitepaper); 67 FP32; 3.35 TB/s; PCIe Gen5
    # 128 GB/s, both directions together.
    "H100 SXM": Gpu("9.0", 989.4, 66.9, 3350, 64),
    # NVIDIA A100 80GB data sheet, SXM: FP16 312 (624 with sparsity); FP32 19.5; 2,039 GB/s; PCIe
    # Gen4 64 GB/s, both directions together.
    "A100 80GB SXM": Gpu("8.0", 312, 19.5, 2039, 32),
    # NVIDIA L4 data sheet: FP16 242 with sparsity; FP32 30.3; 300 GB/s; PCIe Gen4 x16 64 GB/s,
    # both directions together. Its 72 W keep it from holding that clock.
    "L4": Gpu("8.9", 121, 30.3, 300, 32),
    # NVIDIA T4 data sheet and Turing whitepaper: 65 mixed precision; FP32 8.1; 320 GB/s (an older
    # edition says 300); PCIe Gen3 x16 32 GB/s, both directions together.
    "T4": Gpu("7.5", 65, 8.1, 320, 16),
}


@dataclass(frozen=True)
class Fractions:
    """The share of a published peak that code reaches.

    Attributes:
        encoder: large matrix products of a library.
        heads: the heads' own tensor-core kernels: small tiles, `mma.sync`, codes unpacked between.
        fp32: conversions and sums of pool_and_pack.
        memory, pcie: long transfers.
        l2_over_memory: bandwidth of the second-level cache over that of memory, for which there is
            no published figure; measured ones are larger.
    """

    encoder: float = 0.60
    heads: float = 0.30
    fp32: float = 0.50
    memory: float = 0.85
    pcie: float = 0.85
    l2_over_memory: float = 1.5


@dataclass(frozen=True)
class Work:
    """What a stage does for one token of a full batch.

    Attributes:
        memory_bytes: to and from device memory.
        l2_bytes: read from the second-level cache again, beyond `memory_bytes`.
        tensor_flops: on tensor cores, a multiply-add being two.
        fp32_ops: instructions on the other units.
        heads: whether its products are those of the heads' kernels (see Fractions).
    """

    memory_bytes: float
    l2_bytes: float = 0
    tensor_flops: float = 0
    fp32_ops: float = 0
    heads: bool = field(default=False, repr=False)

    @property
    def operations(self) -> float:
        return self.tensor_flops + self.fp32_ops

    def seconds(self, gpu: Gpu, fractions: Fractions) -> dict[str, float]:
        """Per token, for each resource: how long it takes if it is the only one."""
        memory = gpu.memory_gb_per_s * 1e9 * fractions.memory
        tensor = gpu.tensor_tflops * 1e12 * (fractions.heads if self.heads else fractions.encoder)
        return {
            "memory": self.memory_bytes / memory,
            "l2": (self.memory_bytes + self.l2_bytes) / (memory * fractions.l2_over_memory),
            "tensor": self.tensor_flops / tensor,
            # A peak counts a multiply-add as two; here an instruction is one.
            "fp32": self.fp32_ops / (gpu.fp32_tflops * 1e12 / 2 * fractions.fp32),
        }


def encoder(shape: Shape) -> Work:
    """Weights are read once per batch; activations are written to memory and read back."""
    d, f = shape.dim, shape.ffn_dim
    parameters = 4 * d * d + 2 * d * f
    products = 2 * parameters + 2 * 2 * TEXT_TOKENS * d  # scores and weighted values, all heads
    # Read and written: QKV 1 + 3, attention 3 + 1, its output 1 + 1, sum and normalization 2 + 1
    # (twice), FFN 1 + f and f + 1.
    activations = (4 + 4 + 2 + 2 * 3 + 2) * d + 2 * f
    weights = parameters / BATCH_TOKENS
    return Work(
        memory_bytes=shape.layers * FP16_BYTES * (activations + weights),
        tensor_flops=shape.layers * products,
    )


def pool_and_pack(shape: Shape) -> Work:
    """Every activation is read once; a conversion and a sum each."""
    return Work(
        memory_bytes=_hidden_bytes(shape) + _code_bytes(shape),
        fp32_ops=2 * shape.pooled_layers * shape.dim,
    )


def block_texts(shape: Shape, tasks: int) -> int:
    """Texts that one launch of the heads takes: what lies between the stages is bounded, and tasks
    are cut into parts before texts get few."""
    halves = shape.attention_heads * _round_up(shape.dim, UNIT_DIM) + 2 * shape.dim
    head_bytes = halves * FP16_BYTES
    most_heads = max(1, heads.WORKSPACE_BYTES // heads.MIN_BLOCK_TEXTS // head_bytes)
    text_bytes = min(tasks, most_heads) * head_bytes
    return max(1, min(heads.MAX_BLOCK_TEXTS, heads.WORKSPACE_BYTES // text_bytes))


def launches(shape: Shape, tasks: int) -> list[int]:
    """Texts of each launch of a full call."""
    most = block_texts(shape, tasks)
    return [min(most, CALL_TEXTS - start) for start in range(0, CALL_TEXTS, most)]


def packed_attention_pool(shape: Shape, tasks: int) -> Work:
    """For each text, group of 16 queries and slice: scores of queries in two fp16 parts over all
    slices, weighted sums of its own."""
    columns = tasks * shape.attention_heads
    groups, slices = _ceil_div(columns, GROUP_COLUMNS), _ceil_div(shape.dim, SLICE_DIM)
    score_dim, pool_dim = _round_up(shape.dim, SIGN_DIM), _round_up(shape.dim, UNIT_DIM)
    scores = 2 * 2 * GROUP_COLUMNS * _round_up(TEXT_TOKENS, SCORE_TOKENS) * score_dim
    sums = 2 * GROUP_COLUMNS * _round_up(TEXT_TOKENS, POOL_TOKENS) * pool_dim
    queries = groups * 2 * GROUP_COLUMNS * score_dim * FP16_BYTES
    queries_once = len(launches(shape, tasks)) * queries / (CALL_TEXTS * TEXT_TOKENS)
    tiles = _ceil_div(TEXT_TOKENS, TILE_TOKENS)
    pooled = columns * pool_dim * FP16_BYTES
    return Work(
        memory_bytes=_code_bytes(shape) + pooled / TEXT_TOKENS + queries_once,
        # Every group's and slice's block reads all codes.
        l2_bytes=FRAGMENT_READERS * slices * tiles * queries / TEXT_TOKENS
        - queries_once
        + (groups * slices - 1) * _code_bytes(shape),
        tensor_flops=groups * (slices * scores + sums) / TEXT_TOKENS,
        heads=True,
    )


def dense(shape: Shape, tasks: int) -> Work:
    """Value projection head by head, inner layer, output layer, as three products per task.

    A launch reads weights from memory, and from the cache again for each further 64 of its texts;
    inputs are read again for each further 64 outputs.
    """
    d, h = shape.dim, shape.attention_heads
    sizes = launches(shape, tasks)
    text_tiles = sum(_ceil_div(size, DENSE_TEXTS) for size in sizes)
    padded_texts = sum(_round_up(size, WARP_TEXTS) for size in sizes)
    memory = l2 = flops = 0.0  # of a call
    for groups, n, k, item in (
        (h, d // h, d, FP16_BYTES),
        (1, d, d, FP16_BYTES),
        (1, CLASSES, d, FP32_BYTES),
    ):
        depth = _round_up(k, DENSE_DEPTH)
        weights = groups * n * depth * FP16_BYTES
        inputs = CALL_TEXTS * groups * k * FP16_BYTES
        memory += weights * len(sizes) + inputs + CALL_TEXTS * groups * n * item
        l2 += weights * (text_tiles - len(sizes)) + inputs * (_ceil_div(n, DENSE_OUTPUTS) - 1)
        flops += 2 * groups * padded_texts * _round_up(n, FEW_OUTPUTS) * depth
    per_token = tasks / (CALL_TEXTS * TEXT_TOKENS)
    return Work(memory * per_token, l2 * per_token, flops * per_token, heads=True)


def stages(shape: Shape, tasks: int) -> dict[str, Work]:
    """Everything a batch goes through, by the kernel's name."""
    return {
        "encoder": encoder(shape),
        "pool_and_pack": pool_and_pack(shape),
        "packed_attention_pool": packed_attention_pool(shape, tasks),
        "grouped_dense": dense(shape, tasks),
    }


def predict(
    works: Mapping[str, Work], gpu: Gpu, fractions: Fractions | None = None
) -> dict[str, dict[str, float | str]]:
    """For each stage: ns per token, what bounds it, its share of the encoder's time."""
    fractions = fractions or Fractions()
    times = {name: work.seconds(gpu, fractions) for name, work in works.items()}
    encoder_s = max(times["encoder"].values())
    return {
        name: {
            "ns_per_token": 1e9 * max(seconds.values()),
            "bound": max(seconds, key=seconds.__getitem__),
            "share_of_encoder": max(seconds.values()) / encoder_s,
            # As if no activation ever left the cache.
            "share_of_products_alone": max(seconds.values()) / times["encoder"]["tensor"],
        }
        for name, seconds in times.items()
    }


def compute(fractions: Fractions | None = None) -> dict[str, object]:
    """All shapes, GPUs and numbers of tasks; see the module's docstring."""
    fractions = fractions or Fractions()
    shapes: dict[str, object] = {}
    for name, shape in SHAPES.items():
        by_tasks = {str(tasks): stages(shape, tasks) for tasks in TASK_COUNTS}
        shapes[name] = {
            "shape": asdict(shape),
            "work_per_token": {
                tasks: {stage: _rounded(_work(work)) for stage, work in works.items()}
                for tasks, works in by_tasks.items()
            },
            "gpus": {
                gpu_name: {
                    "tasks": {
                        tasks: {s: _rounded(p) for s, p in predict(works, gpu, fractions).items()}
                        for tasks, works in by_tasks.items()
                    },
                    "bus": _bus(shape, gpu, fractions),
                }
                for gpu_name, gpu in GPUS.items()
            },
        }
    return {
        "assumptions": {
            "text_tokens": TEXT_TOKENS,
            "batch_tokens": BATCH_TOKENS,
            "padding": 0,
            "classes": CLASSES,
            "texts_in_a_launch_of_heads": {
                name: {str(tasks): block_texts(shape, tasks) for tasks in TASK_COUNTS}
                for name, shape in SHAPES.items()
            },
            "fractions_of_peak": asdict(fractions),
            "encoder_is_one_perfectly_overlapped_stage": True,
            "launches_and_latency": "left out",
        },
        "gpus": {
            name: {**asdict(gpu), "compiled_for": gpu.is_compiled_for} for name, gpu in GPUS.items()
        },
        "shapes": shapes,
    }


def _bus(shape: Shape, gpu: Gpu, fractions: Fractions) -> dict[str, dict[str, float | str]]:
    """What crosses the bus to the host per token, with and without our kernels on the GPU."""
    bytes_per_s = gpu.pcie_gb_per_s * 1e9 * fractions.pcie
    encoder_s = max(encoder(shape).seconds(gpu, fractions).values())
    return {
        name: _rounded(
            {
                "bytes": num_bytes,
                "ns_per_token": 1e9 * num_bytes / bytes_per_s,
                "share_of_encoder": num_bytes / bytes_per_s / encoder_s,
            }
        )
        for name, num_bytes in (
            ("codes", _code_bytes(shape)),
            ("hidden_states", _hidden_bytes(shape)),
        )
    }


def _code_bytes(shape: Shape) -> int:
    return _ceil_div(shape.dim, 8)


def _hidden_bytes(shape: Shape) -> int:
    """Bytes of a token's pooled layers in fp16, which leave the GPU without our kernel."""
    return shape.pooled_layers * shape.dim * FP16_BYTES


def _work(work: Work) -> dict[str, float]:
    return {f.name: getattr(work, f.name) for f in fields(work) if f.repr}


def _rounded(values: Mapping[str, float | str]) -> dict[str, float | str]:
    return {
        name: value if isinstance(value, str) else rounded(value, 5)
        for name, value in values.items()
    }


def _ceil_div(value: int, by: int) -> int:
    return -(-value // by)


def _round_up(value: int, multiple: int) -> int:
    return _ceil_div(value, multiple) * multiple
