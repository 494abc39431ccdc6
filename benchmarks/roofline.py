"""How long each kernel must take on a GPU, from its bytes and operations: a model, no measurement.

Work is counted for a token of a full batch without padding. A stage's time is that of the resource
it needs longest, at the fraction of the published peak that such code reaches (`Fractions`):
matrix products on tensor cores, other arithmetic, device memory, second-level cache. The encoder
as a whole is one stage, as if its memory traffic were hidden perfectly behind its products: that
makes it fast, and the shares of everything else large. Launches and latency are left out, so
nothing here holds for a single short text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from export.device_code import ARCHITECTURES

FP16_BYTES = 2
BATCH_TOKENS = 16384
"""engine.device.encoder.MAX_BATCH_TOKENS."""
TEXT_TOKENS = 50
"""A text of the paper (Section 6)."""
TASK_COUNTS = (1, 14, 100, 1000)
CLASSES = 3

# Tiles of kernels/cuda: packed_attention_pool_args.h, grouped_dense_args.h.
GROUP_COLUMNS = 16
SCORE_TOKENS, POOL_TOKENS, TILE_TOKENS = 32, 16, 64
SIGN_DIM, UNIT_DIM = 128, 32
DENSE_TEXTS, DENSE_OUTPUTS, MMA_OUTPUTS = 64, 64, 8


@dataclass(frozen=True)
class Gpu:
    """Published peaks.

    Attributes:
        compute_capability: such as "9.0".
        tensor_tflops: dense fp16 products with fp32 sums, 10^12 operations a second.
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
class Shape:
    """An encoder, and how many of its layers are pooled. Heads have as many attention heads."""

    layers: int
    dim: int
    ffn_dim: int
    attention_heads: int
    pooled_layers: int

    @property
    def code_bytes(self) -> int:
        return _ceil_div(self.dim, 8)

    @property
    def hidden_bytes(self) -> int:
        """Of a token's pooled layers in fp16, which is what leaves the GPU without our kernel."""
        return self.pooled_layers * self.dim * FP16_BYTES


SHAPES = {
    "RoBERTa-large": Shape(24, 1024, 4096, 16, 16),
    "all-MiniLM-L6-v2": Shape(6, 384, 1536, 12, 4),
}


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
        """For a token, by the resource that would take so long if it were the only one."""
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
    """Weights once a batch; each stage's activations written to memory and read back."""
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
        memory_bytes=shape.hidden_bytes + shape.code_bytes,
        fp32_ops=2 * shape.pooled_layers * shape.dim,
    )


def packed_attention_pool(shape: Shape, tasks: int) -> Work:
    """For each text and group of 16 queries: scores of queries in two fp16 parts, weighted sums."""
    columns = tasks * shape.attention_heads
    groups = _ceil_div(columns, GROUP_COLUMNS)
    score_dim, pool_dim = _round_up(shape.dim, SIGN_DIM), _round_up(shape.dim, UNIT_DIM)
    scores = 2 * 2 * GROUP_COLUMNS * _round_up(TEXT_TOKENS, SCORE_TOKENS) * score_dim
    sums = 2 * GROUP_COLUMNS * _round_up(TEXT_TOKENS, POOL_TOKENS) * pool_dim
    queries = 2 * GROUP_COLUMNS * score_dim * FP16_BYTES  # of a group
    tiles = _ceil_div(TEXT_TOKENS, TILE_TOKENS)
    pooled = columns * pool_dim * FP16_BYTES
    return Work(
        memory_bytes=shape.code_bytes + pooled / TEXT_TOKENS + groups * queries / BATCH_TOKENS,
        # Two warps of a block read each fragment; codes are read again by each further group.
        l2_bytes=2 * groups * tiles * queries / TEXT_TOKENS + (groups - 1) * shape.code_bytes,
        tensor_flops=groups * (scores + sums) / TEXT_TOKENS,
        heads=True,
    )


def dense(shape: Shape, tasks: int) -> Work:
    """Value projection head by head, inner layer, output layer, as three products a task.

    Weights pass through the cache once for 64 texts, inputs once for 64 outputs.
    """
    d, h = shape.dim, shape.attention_heads
    texts = BATCH_TOKENS / TEXT_TOKENS
    memory = l2 = flops = 0.0
    for groups, n, k in ((h, d // h, d), (1, d, d), (1, CLASSES, d)):
        weights = groups * n * k * FP16_BYTES
        inputs, outputs = groups * k * FP16_BYTES, groups * n * FP16_BYTES
        memory += weights / texts + inputs + outputs
        l2 += weights / DENSE_TEXTS + inputs * _ceil_div(n, DENSE_OUTPUTS)
        flops += 2 * groups * _round_up(n, MMA_OUTPUTS) * k
    per_token = tasks / TEXT_TOKENS
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
    """For each stage: ns a token, what bounds it, its share of the encoder's time."""
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
    """What crosses the bus to the host for a token, with and without our kernels on the GPU."""
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
        for name, num_bytes in (("codes", shape.code_bytes), ("hidden_states", shape.hidden_bytes))
    }


def _work(work: Work) -> dict[str, float]:
    return {f.name: getattr(work, f.name) for f in fields(work) if f.repr}


def _rounded(values: Mapping[str, float | str]) -> dict[str, float | str]:
    return {
        name: value if isinstance(value, str) else float(f"{value:.5g}")
        for name, value in values.items()
    }


def _ceil_div(value: int, by: int) -> int:
    return -(-value // by)


def _round_up(value: int, multiple: int) -> int:
    return _ceil_div(value, multiple) * multiple
