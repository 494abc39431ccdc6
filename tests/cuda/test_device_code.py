"""What the compiler made of the CUDA kernels, on every architecture: needs no GPU to look at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from export.device_code import (
    ARCHITECTURES,
    PTX,
    KernelResources,
    compile_device_code,
    find_tool,
    parse_report,
    run_tool,
)
from export.errors import ExportError

NUM_KERNELS = 42  # 3 dtypes x (3 modes with and without weights + the vote) x 2 paths
MAX_REGISTERS = 40
# Here the assembler orders the second of two loads after the first sums: 40 registers are few.
ONE_LOAD_AT_A_TIME = {
    ("sm_80", "pool_and_pack_float16_vote_vector"),
    ("sm_80", "pool_and_pack_bfloat16_vote_vector"),
}


@dataclass(frozen=True)
class DeviceCode:
    """One build of all kernels, and instructions [address, text] by architecture and kernel."""

    reports: list[KernelResources]
    instructions: dict[tuple[str, str], list[tuple[int, str]]]
    ptx_files: str


@pytest.fixture(scope="module")
def device_code(tmp_path_factory: pytest.TempPathFactory) -> DeviceCode:
    try:
        for tool in ("nvcc", "cuobjdump", "nvdisasm"):
            find_tool(tool)
    except ExportError as error:
        pytest.skip(f"{error}, or make device")
    binary = tmp_path_factory.mktemp("device") / "pool_and_pack.fatbin"
    reports = compile_device_code(binary)
    return DeviceCode(reports, disassemble(binary), run_tool("cuobjdump", "-lptx", str(binary)))


def disassemble(binary: Path) -> dict[tuple[str, str], list[tuple[int, str]]]:
    instructions: dict[tuple[str, str], list[tuple[int, str]]] = {}
    architecture = ""
    current: list[tuple[int, str]] = []
    for line in run_tool("cuobjdump", "-sass", str(binary)).splitlines():
        if found := re.match(r"\s*arch = (\w+)", line):
            architecture = found[1]
        elif found := re.match(r"\s*Function : (\w+)", line):
            current = instructions.setdefault((architecture, found[1]), [])
        elif found := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(\S.*?)\s*;", line):
            current.append((int(found[1], 16), found[2]))
    return instructions


def loading_loops(instructions: list[tuple[int, str]]) -> Iterator[list[str]]:
    """The bodies of loops, from a backward branch's target to the branch, that load."""
    for address, text in instructions:
        branch = re.search(r"\bBRA\b.* 0x([0-9a-f]+)$", text)
        if branch is None or int(branch[1], 16) >= address:
            continue
        body = [t for a, t in instructions if int(branch[1], 16) <= a <= address]
        if any("LDG" in t for t in body):
            yield body


def opcode(text: str) -> str:
    return re.sub(r"^@!?U?P\w+ +", "", text).split(" ")[0]


def test_every_kernel_is_there(device_code: DeviceCode) -> None:
    made = {(r.architecture, r.kernel) for r in device_code.reports}
    assert len(made) == len(device_code.reports) == NUM_KERNELS * len(ARCHITECTURES)
    assert {architecture for architecture, _ in made} == set(ARCHITECTURES)
    assert made == set(device_code.instructions)
    assert all(device_code.instructions.values())
    assert PTX.replace("compute", "sm") in device_code.ptx_files


def test_nothing_spills(device_code: DeviceCode) -> None:
    for report in device_code.reports:
        assert report.spill_bytes == report.stack_bytes == report.shared_bytes == 0, report
    for which, instructions in device_code.instructions.items():
        local = [text for _, text in instructions if re.search(r"\b(LDL|STL)\b", text)]
        assert not local, which


def test_registers_leave_room(device_code: DeviceCode) -> None:
    """1,536 threads a multiprocessor: all of them, or three quarters where it takes 2,048."""
    for report in device_code.reports:
        assert report.registers <= MAX_REGISTERS, report
        expected = 1536 / ARCHITECTURES[report.architecture].max_threads
        assert report.occupancy >= expected, report


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hot_loops_load_16_bytes(device_code: DeviceCode, architecture: str) -> None:
    """A round's loads are all on their way before its first sum."""
    checked = 0
    for (its_architecture, kernel), instructions in device_code.instructions.items():
        if its_architecture != architecture or not kernel.endswith("_vector"):
            continue
        rounds = []
        for body in loading_loops(instructions):
            opcodes = [opcode(text) for text in body]
            loads = [i for i, code in enumerate(opcodes) if code.startswith("LD")]
            loads = [i for i in loads if not opcodes[i].startswith(("LDC", "LDCU"))]
            assert all(re.match(r"LDG\.E\.128\b", opcodes[i]) for i in loads), (kernel, opcodes)
            waits = max(loads) > opcodes.index("FADD")
            assert not waits or (architecture, kernel) in ONE_LOAD_AT_A_TIME, (architecture, kernel)
            rounds.append(len(loads))
        # A vote over eight features has no registers for more.
        in_flight = 2 if "_vote_" in kernel and "float32" not in kernel else 4
        assert sorted(rounds) == [1, in_flight], f"{architecture} {kernel}"
        checked += 1
    assert checked == NUM_KERNELS / 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_fused_multiply_add_in_sums(device_code: DeviceCode, architecture: str) -> None:
    """A correctly rounded division is made of them, and of steps that flush; nothing else is."""
    inexact = re.compile(r"^(FFMA|HFMA2|FADD2|FMUL2|F\w+\.(.*\.)?FTZ)")
    zero = re.compile(r"^HFMA2(\.MMA)? R\d+, -RZ, RZ, ")  # how the compiler writes a constant
    for (its_architecture, kernel), instructions in device_code.instructions.items():
        if its_architecture != architecture:
            continue
        texts = [text for _, text in instructions]
        if re.search("_(uint8|half)_(vector|scalar)$", kernel):  # the mean divides, after the loops
            assert any(opcode(text).startswith("FFMA") for text in texts)
            texts = [text for body in loading_loops(instructions) for text in body]
        texts = [re.sub(r"^@!?U?P\w+ +", "", text) for text in texts]
        assert any(text.startswith("FADD ") for text in texts)
        found = [text for text in texts if inexact.match(text) and not zero.match(text)]
        assert not found, f"{architecture} {kernel}"


def test_reports_are_read_as_printed() -> None:
    text = """ptxas info    : Compiling entry function 'a_vector' for 'sm_90'
ptxas info    : Function properties for a_vector
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 33 registers, used 0 barriers, 16 bytes cumulative stack size, 64 bytes smem
ptxas info    : Compiling entry function 'b' for 'sm_86'
ptxas info    : Function properties for b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""
    first, second = parse_report(text)
    assert first == KernelResources("a_vector", "sm_90", 33, 16, 12, 64)
    assert second == KernelResources("b", "sm_86", 40, 0, 0, 0)
    assert (first.occupancy, second.occupancy) == (0.75, 1.0)


def test_a_missing_compiler_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExportError, match=r"nvcc: found neither .* pip install -e '\.\[device\]'"):
        find_tool("nvcc")
