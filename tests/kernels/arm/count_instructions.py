"""Instructions per token of each ARM level, as an emulator counts them.

    python tests/kernels/arm/count_instructions.py

The difference between one call and two is what a call takes. No times: nothing of this runs on an
ARM processor, whose instructions take different times.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from arm_calls import heads_request, pack_request  # noqa: E402
from arm_program import build_program  # noqa: E402
from head_cases import make_codes, make_head, offsets_of  # noqa: E402
from kernel_cases import make_layers, make_options  # noqa: E402

LEVELS = ("serial", "neon", "neon_dotprod")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program, plugin = build_program(Path(folder)), build_plugin(Path(folder))
        for name, tokens, requests in workloads():
            counts = []
            for level in LEVELS:
                once, again = (count(program, plugin, level, request) for request in requests)
                counts.append((again - once) / tokens)
            ratios = (
                f"{level} {each:,.0f} ({counts[0] / each:.1f}x fewer)"
                for level, each in zip(LEVELS, counts, strict=True)
            )
            print(f"{name}: {', '.join(ratios)}", flush=True)


def build_plugin(folder: Path) -> Path:
    """QEMU's plugin."""
    plugin = folder / "count.so"
    source = str(HERE / "count_instructions.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", source, "-o", str(plugin)], check=True)
    return plugin


def workloads() -> list[tuple[str, int, tuple[bytes, bytes]]]:
    """Name, tokens of a call, and the request of one call and of two."""
    made = []
    texts, text_tokens = 60, 50
    for quantization in ("sign", "uint8"):
        for dim, attention_heads in ((384, 12), (768, 12), (1024, 16)):
            heads = [make_head(0, quantization, dim, attention_heads=attention_heads)]
            codes = make_codes(0, quantization, dim, texts * text_tokens)
            offsets = offsets_of((text_tokens,) * texts)
            once, again = (heads_request(codes, offsets, heads, times=times) for times in (1, 2))
            name = f"heads, {quantization}, dim {dim}, {attention_heads} attention heads"
            made.append((name, texts * text_tokens, (once, again)))
    rng = np.random.default_rng(0)
    for mode in ("sign", "sign_thresholds", "vote", "uint8", "float16"):
        for dtype in ("float32", "float16", "bfloat16"):
            layers = make_layers(rng, 4, (4, 50, 768), dtype)
            lengths = np.full(4, 50)
            options = make_options(rng, mode, 4, 768)
            once, again = (
                pack_request(layers, lengths, np.arange(4) * 50, options, 200, times=times)
                for times in (1, 2)
            )
            made.append((f"packing, {mode}, 4 layers of {dtype}, dim 768", 200, (once, again)))
    return made


def count(program: Path, plugin: Path, level: str, request: bytes) -> int:
    command = [
        "qemu-aarch64", "-cpu", "max", "-plugin", str(plugin), "-d", "plugin", str(program),
    ]  # fmt: skip
    environment = {**os.environ, "BITHEADS_KERNEL_LEVEL": level}
    done = subprocess.run(command, input=request, capture_output=True, env=environment, check=True)
    assert done.stdout.startswith(f"{level}\n".encode())
    counted = re.search(rb"instructions: (\d+)", done.stderr)
    assert counted is not None
    return int(counted[1])


if __name__ == "__main__":
    main()
