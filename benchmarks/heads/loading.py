"""What a head takes on disk and in memory, and how long it takes to get from one to the other."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures.rounding import rounded
from benchmarks.heads.cases import Settings
from benchmarks.inputs.random_heads import random_heads, spec_of
from bitheads.engine.features.spec import Quantization
from bitheads.engine.heads.cpu import lay_out
from bitheads.engine.heads.head_file import SUFFIX, read_head, write_head


def measure(settings: Settings) -> dict[str, Any]:
    """Random heads of each shape, written as heads are shipped: signs, in float16."""
    found = {}
    smallest = min(shape.dim for shape in settings.encoders.values())
    for name, shape in settings.encoders.items():
        count = settings.head_files if shape.dim == smallest else max(1, settings.head_files // 10)
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            spec = spec_of(shape, Quantization.SIGN)
            for head in random_heads(spec, shape.attention_heads, count):
                paths.append(Path(folder) / f"{head.task}{SUFFIX}")
                write_head(head, paths[-1], dtype="float16")
            read_s = lay_out_s = 0.0
            memory_bytes = 0
            for path in paths:
                started_s = time.perf_counter()
                head = read_head(path)
                read_at_s = time.perf_counter()
                memory_bytes = lay_out(head).nbytes
                lay_out_s += time.perf_counter() - read_at_s
                read_s += read_at_s - started_s
            found[name] = {
                "dim": shape.dim,
                "heads": count,
                "file_bytes": paths[0].stat().st_size,
                "memory_bytes": memory_bytes,
                "read_s": rounded(read_s),
                "lay_out_s": rounded(lay_out_s),
                "ms_per_head": rounded(1e3 * (read_s + lay_out_s) / count),
            }
    return found
