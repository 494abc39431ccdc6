"""Whether there is room for an encoder, asked before the first byte of it is read or written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bitheads.export.errors import ExportError

BYTES_PER_WEIGHT = {"fp32": 4, "fp16": 2, "int8_dynamic": 4, "int8": 3}
"""Bytes that a bundle's graphs take for a weight, at most, by the precision it is built in: int8 is
beside fp16, and int8_dynamic beside it has its tables of embeddings in fp16 again."""
GPU_GRAPH_BYTES = 2
"""Bytes more of one for GPUs in 8 bits: its tables of embeddings are as they are."""


def check_room(what: str, num_bytes: int, path: Path, fix: str) -> None:
    """Raises ExportError if the disk of a path, which need not be there yet, has less room."""
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if num_bytes > free:
        raise ExportError(
            f"{what} take {_shown(num_bytes)}, but there are {_shown(free)} free at {there}. {fix}"
        )


def check_output_room(
    num_weights: int, precision: str, gpu_precision: str | None, output: Path, folder: Path
) -> None:
    """Raises ExportError if an encoder's bundle does not fit where it is to be written.

    Args:
        gpu_precision: of the graph for GPUs in 8 bits, None without one.
        folder: beside `output`, where it is written first.
    """
    in_all = precision if gpu_precision is None else f"{precision}, and {gpu_precision} for GPUs,"
    bytes_each = BYTES_PER_WEIGHT[precision] + (GPU_GRAPH_BYTES if gpu_precision else 0)
    check_room(
        f"--output {output}: the encoder's {num_weights:,} weights in {in_all}",
        num_weights * bytes_each,
        folder.parent,
        "Free some, name a folder on another disk, or take a smaller encoder.",
    )


def check_memory(name: str, num_weights: int) -> None:
    """Raises ExportError if this machine cannot hold an encoder, which is loaded in float32."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = 4 * num_weights
    if needed > installed:
        raise ExportError(
            f"encoder {name!r}: its {num_weights:,} weights take {_shown(needed)} of memory in "
            f"float32, but this machine has {_shown(installed)}. Take a machine with more, or a "
            "smaller encoder."
        )


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
