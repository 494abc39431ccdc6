"""`bitheads device-code`: the CUDA kernels become one fat binary, with a report on each.

Needs NVIDIA's compiler but no GPU and no driver. The engine finds the file where it is written by
default, in the package's own folder, and a wheel made afterwards carries it along.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from bitheads.engine.commands.command_line import exit_code
from bitheads.engine.device.code import DEVICE_CODE, write_device_code
from bitheads.engine.process.json_lines import print_json
from bitheads.export.errors import ExportError

ROOT = Path(__file__).resolve().parent.parent  # of the folder, not of the link to it
SOURCE = ROOT / "kernels/cuda/bitheads.cu"
# pool_and_pack names every rounding itself; the flags say it again for whatever is added.
FLAGS = ("-std=c++17", "-O3", "-ftz=false", "-prec-div=true", "-fmad=false")
BLOCK_THREADS = {
    "pool_and_pack": 128,
    "pool_positions": 128,
    "packed_attention_pool": 256,
    "grouped_dense": 128,
}
"""Threads per block in the launch plans, by the family that begins a kernel's name."""
_WARP_THREADS = 32
_SM_REGISTERS = 65536
_REGISTER_UNIT = 8  # a thread's registers are handed out in eights
_SHARED_UNIT = 128
_SYSTEM_SHARED = 1024  # bytes that the system takes of every block


@dataclass(frozen=True)
class Multiprocessor:
    """What a multiprocessor holds at once (CUDA C++ Programming Guide, table
    "Technical Specifications per Compute Capability")."""

    max_threads: int
    max_blocks: int
    shared_kib: int


ARCHITECTURES = {
    "sm_80": Multiprocessor(2048, 32, 164),
    "sm_86": Multiprocessor(1536, 16, 100),
    "sm_89": Multiprocessor(1536, 24, 100),
    "sm_90": Multiprocessor(2048, 32, 228),
    "sm_100": Multiprocessor(2048, 32, 228),
    "sm_120": Multiprocessor(1536, 24, 100),
}
PTX = "compute_80"
"""Architecture of the code that the driver compiles for GPUs not listed, such as newer ones."""


@dataclass(frozen=True)
class KernelResources:
    """Resources of one kernel on one architecture, as the assembler reports them.

    Attributes:
        registers: 32-bit registers per thread.
        stack_bytes, spill_bytes: local memory per thread; spills count stores and loads.
        shared_bytes: shared memory per block.
    """

    kernel: str
    architecture: str
    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int

    @property
    def block_threads(self) -> int:
        return next(n for family, n in BLOCK_THREADS.items() if self.kernel.startswith(family))

    @property
    def resident_blocks(self) -> int:
        """Blocks that a multiprocessor holds at once."""
        sm = ARCHITECTURES[self.architecture]
        granted = -(-self.registers // _REGISTER_UNIT) * _REGISTER_UNIT
        warps = _SM_REGISTERS // (granted * _WARP_THREADS)
        shared = -(-(self.shared_bytes + _SYSTEM_SHARED) // _SHARED_UNIT) * _SHARED_UNIT
        return min(
            warps // (self.block_threads // _WARP_THREADS),
            sm.max_threads // self.block_threads,
            sm.max_blocks,
            sm.shared_kib * 1024 // shared,
        )

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's threads that can be resident."""
        max_threads = ARCHITECTURES[self.architecture].max_threads
        return self.resident_blocks * self.block_threads / max_threads


def find_tool(name: str) -> Path:
    """A program of the CUDA toolkit, from this environment's packages or else from PATH.

    Raises:
        ExportError: it is in neither.
    """
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        # The packages come first, as their versions are pinned; the newest toolkit of several.
        for path in sorted(Path(folder).glob(f"cu*/bin/{name}"), reverse=True):
            return path
    if found := shutil.which(name):
        return Path(found)
    raise ExportError(
        f"{name}: found neither among this environment's packages nor on PATH, expected NVIDIA's "
        "compiler for device code. Type: pip install -e '.[device]' -c constraints-device.txt"
    )


def run_tool(name: str, *arguments: str) -> str:
    """Output of a program of the toolkit, which finds its siblings beside it.

    Raises:
        ExportError: it is missing or it failed.
    """
    tool = find_tool(name)
    environment = {**os.environ, "PATH": f"{tool.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [str(tool), *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode != 0:
        raise ExportError(f"{tool}: failed with code {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def compile_device_code(output: Path) -> list[KernelResources]:
    """Compiles all kernels for all architectures into one fat binary.

    Args:
        output: the file to write; engine.device.code says what is written beside it.

    Returns:
        a report for each architecture and kernel.

    Raises:
        ExportError: the sources or the compiler are missing, or the compiler failed.
    """
    if not SOURCE.exists():
        raise ExportError(
            f"{SOURCE}: not found. An installed package carries no kernel sources: run this in a "
            "clone of the repository"
        )
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "bitheads.fatbin"
        report = run_tool("nvcc", *_arguments(), "-o", str(made), str(SOURCE))
        try:
            write_device_code(output, made.read_bytes())
        except OSError as error:
            raise ExportError(
                f"{output}: cannot be written ({error}). Choose a folder you may write to."
            ) from error
    return parse_report(report)


def _arguments() -> list[str]:
    targets = [f"-gencode=arch={a.replace('sm', 'compute')},code={a}" for a in ARCHITECTURES]
    targets.append(f"-gencode=arch={PTX},code={PTX}")
    return ["-fatbin", "--threads=0", *FLAGS, *targets, "--resource-usage", "-I", "kernels/include"]


_REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def parse_report(text: str) -> list[KernelResources]:
    """Reads what `nvcc --resource-usage` prints."""
    reports = []
    for match in _REPORT.finditer(text):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        reports.append(
            KernelResources(
                kernel=match["kernel"],
                architecture=match["architecture"],
                registers=int(match["registers"]),
                stack_bytes=int(match["stack"]),
                spill_bytes=int(match["stores"]) + int(match["loads"]),
                shared_bytes=int(shared[1]) if shared else 0,
            )
        )
    return reports


def table(reports: list[KernelResources]) -> str:
    """The reports for people: a line per kernel, a column per architecture."""
    cells = {(r.kernel, r.architecture): r for r in reports}
    lines = [f"{'registers (occupancy %)':48}" + "".join(f"{a:>10}" for a in ARCHITECTURES)]
    for kernel in sorted({r.kernel for r in reports}):
        row = [cells[kernel, a] for a in ARCHITECTURES]
        shown = [f"{r.registers} ({100 * r.occupancy:.0f})" for r in row]
        lines.append(f"{kernel:48}" + "".join(f"{cell:>10}" for cell in shown))
    spills, stack, shared = (
        max(getattr(r, name) for r in reports)
        for name in ("spill_bytes", "stack_bytes", "shared_bytes")
    )
    lines.append(f"most bytes: {spills} spilled, {stack} of stack, {shared} of shared memory")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads device-code", description=(__doc__ or "").split(": ", 1)[1]
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        metavar="FILE",
        default=DEVICE_CODE,
        help="the fat binary (default: where the engine looks, %(default)s)",
    )
    add("--json", action="store_true", help="print the report as JSON")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    print("compiling the CUDA kernels, which takes about a minute", file=sys.stderr)
    reports = compile_device_code(arguments.output)
    if arguments.json:
        print_json([{**asdict(r), "occupancy": r.occupancy} for r in reports])
    else:
        print(table(reports))
        print(f"wrote {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
