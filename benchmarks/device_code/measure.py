"""What NVIDIA's compiler made of each family of CUDA kernels: registers, spills, load widths.

Needs the compiler but no GPU. Kernels differ by type and mode; a family's figures are its worst.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from bitheads.export.device_code import (
    ARCHITECTURES,
    KernelResources,
    compile_device_code,
    run_tool,
)

FAMILIES = ("pool_and_pack", "pool_positions", "packed_attention_pool", "grouped_dense")
PATHS = ("vector", "scalar")
"""Endings of kernel names that tell two paths of a family apart."""

Instructions = dict[tuple[str, str], list[tuple[int, str]]]
"""(architecture, kernel) -> (address, text) of each instruction."""

WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
"""Word of an opcode -> bytes of its load, which are 4 without any of these words."""


def run(options: argparse.Namespace) -> None:
    """Compiles all kernels for all architectures and stores a line per family."""
    with tempfile.TemporaryDirectory() as scratch:
        binary = Path(scratch) / "kernels.fatbin"
        reports = compile_device_code(binary)
        instructions = parse_sass(run_tool("cuobjdump", "-sass", str(binary)))
    result = {
        "compiler": run_tool("nvcc", "--version").strip().splitlines()[-1],
        "architectures": list(ARCHITECTURES),
        "families": families(reports, instructions),
    }
    record.write("device_code", "python -m benchmarks device_code", result)


def family_of(kernel: str) -> str:
    """The longest family name that a kernel's begins with, and its path: "pool_and_pack, scalar".

    A kernel of no known family is one of its own, so that a new one is seen before it is listed.
    """
    known = [name for name in FAMILIES if kernel.startswith(name)]
    family = max(known, key=len, default=kernel)
    path = next((path for path in PATHS if kernel.endswith(f"_{path}")), None)
    return family if path is None else f"{family}, {path}"


def families(
    reports: Sequence[KernelResources], instructions: Instructions
) -> dict[str, dict[str, Any]]:
    """For each family: its size, and the worst of its kernels over all architectures."""
    members: dict[str, list[KernelResources]] = defaultdict(list)
    for report in reports:
        members[family_of(report.kernel)].append(report)
    found = {}
    for name, kernels in sorted(members.items()):
        widths = [
            load_widths(instructions[report.architecture, report.kernel]) for report in kernels
        ]
        found[name] = {
            "kernels": len({report.kernel for report in kernels}),
            "max_registers": max(report.registers for report in kernels),
            "max_registers_by_architecture": {
                architecture: max(r.registers for r in kernels if r.architecture == architecture)
                for architecture in ARCHITECTURES
            },
            "min_occupancy": min(report.occupancy for report in kernels),
            "max_spill_bytes": max(report.spill_bytes for report in kernels),
            "max_stack_bytes": max(report.stack_bytes for report in kernels),
            "max_shared_bytes": max(report.shared_bytes for report in kernels),
            # Of every kernel the widest load of its loops; of these the narrowest.
            "load_bytes": min(max(kernel, default=0) for kernel in widths),
            "narrowest_load_bytes": min(min(kernel, default=0) for kernel in widths),
        }
    return found


def parse_sass(text: str) -> Instructions:
    """Reads what `cuobjdump -sass` prints."""
    found: Instructions = {}
    architecture = ""
    current: list[tuple[int, str]] = []
    for line in text.splitlines():
        if match := re.match(r"\s*arch = (\w+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\w+)", line):
            current = found.setdefault((architecture, match[1]), [])
        elif match := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(\S.*?)\s*;", line):
            current.append((int(match[1], 16), match[2]))
    return found


def load_widths(instructions: Iterable[tuple[int, str]]) -> set[int]:
    """Bytes per thread of a kernel's loads from device memory: in its loops, else in all of it."""
    listed = list(instructions)
    return set(_widths(_in_loops(listed))) or set(_widths(text for _, text in listed))


def _in_loops(instructions: Sequence[tuple[int, str]]) -> Iterator[str]:
    loops = [
        (int(match[1], 16), address)
        for address, text in instructions
        if (match := re.search(r"\bBRA\b.* 0x([0-9a-f]+)$", text)) and int(match[1], 16) < address
    ]
    for address, text in instructions:
        if any(first <= address <= last for first, last in loops):
            yield text


def _widths(texts: Iterable[str]) -> Iterator[int]:
    for text in texts:
        opcode = re.sub(r"^@!?U?P\w+ +", "", text).split(" ")[0].split(".")
        if opcode[0] == "LDG":
            yield next((WIDTHS[word] for word in opcode if word in WIDTHS), 4)
