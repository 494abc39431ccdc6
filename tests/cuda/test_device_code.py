"""What the compiler made of the CUDA kernels, on every architecture: needs no GPU to look at."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bitheads.engine.device.code import DEVICE_CODE, read_device_code
from bitheads.export.device_code import (
    ARCHITECTURES,
    PTX,
    ROOT,
    KernelResources,
    compile_device_code,
    find_tool,
    parse_report,
    run_tool,
)
from bitheads.export.errors import ExportError

NUM_PACKING = 42  # 3 dtypes x (3 modes with and without weights + the vote) x 2 paths
POSITIONS = {f"pool_positions_{dtype}" for dtype in ("float32", "float16", "bfloat16")}
HEADS = {
    *(f"packed_attention_pool_{quantization}" for quantization in ("sign", "uint8", "float16")),
    *(f"grouped_dense_{output}" for output in ("float16", "tanh_float16", "float32")),
}
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
    ptx: str

    def of_packing(self, architecture: str) -> dict[str, list[tuple[int, str]]]:
        """Instructions of the kernels of pool_and_pack, by name."""
        return self._of(architecture, "pool_and_pack_")

    def _of(self, architecture: str, *families: str) -> dict[str, list[tuple[int, str]]]:
        return {
            kernel: instructions
            for (its_architecture, kernel), instructions in self.instructions.items()
            if its_architecture == architecture and kernel.startswith(families)
        }

    def of_positions(self, architecture: str) -> dict[str, list[tuple[int, str]]]:
        return self._of(architecture, "pool_positions_")

    def of_heads(self, architecture: str) -> dict[str, list[tuple[int, str]]]:
        return self._of(architecture, "packed_attention_pool_", "grouped_dense_")


@pytest.fixture(scope="module")
def device_code(tmp_path_factory: pytest.TempPathFactory) -> DeviceCode:
    try:
        for tool in ("nvcc", "cuobjdump", "nvdisasm"):
            find_tool(tool)
    except ExportError as error:
        pytest.skip(f"{error}, or make device")
    binary = tmp_path_factory.mktemp("device") / "bitheads.fatbin"
    reports = compile_device_code(binary)
    listing, ptx = (run_tool("cuobjdump", option, str(binary)) for option in ("-lptx", "-ptx"))
    return DeviceCode(reports, disassemble(binary), listing, ptx)


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


def loops(instructions: list[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    """First and last address of each loop, from a backward branch's target to the branch."""
    for address, text in instructions:
        branch = re.search(r"\bBRA\b.* 0x([0-9a-f]+)$", text)
        if branch is not None and int(branch[1], 16) < address:
            yield int(branch[1], 16), address


def bodies(
    instructions: list[tuple[int, str]], of: Iterable[tuple[int, int]], using: str
) -> Iterator[list[str]]:
    """The instructions of the loops in which `using` occurs."""
    for first, last in of:
        body = [text for address, text in instructions if first <= address <= last]
        if any(using in text for text in body):
            yield body


def loading_loops(instructions: list[tuple[int, str]]) -> Iterator[list[str]]:
    return bodies(instructions, loops(instructions), "LDG")


def inner_loops(instructions: list[tuple[int, str]], using: str) -> Iterator[list[str]]:
    """Those without a loop inside them."""
    found = list(loops(instructions))
    inner = [
        (first, last)
        for first, last in found
        if not any(first <= a and b < last for a, b in found if (a, b) != (first, last))
    ]
    return bodies(instructions, inner, using)


def opcode(text: str) -> str:
    return re.sub(r"^@!?U?P\w+ +", "", text).split(" ")[0]


def test_every_kernel_is_there(device_code: DeviceCode) -> None:
    made = {(r.architecture, r.kernel) for r in device_code.reports}
    kernels = {kernel for _, kernel in made}
    assert len(made) == len(device_code.reports) == len(kernels) * len(ARCHITECTURES)
    assert len(kernels) == NUM_PACKING + len(POSITIONS) + len(HEADS)
    assert kernels >= HEADS | POSITIONS
    assert {architecture for architecture, _ in made} == set(ARCHITECTURES)
    assert made == set(device_code.instructions)
    assert all(device_code.instructions.values())
    assert PTX.replace("compute", "sm") in device_code.ptx_files


def test_nothing_spills(device_code: DeviceCode) -> None:
    for report in device_code.reports:
        assert report.spill_bytes == report.stack_bytes == 0, report
    for which, instructions in device_code.instructions.items():
        local = [text for _, text in instructions if re.search(r"\b(LDL|STL)\b", text)]
        assert not local, which


def test_registers_leave_room(device_code: DeviceCode) -> None:
    """1,536 threads a multiprocessor: all of them, or three quarters where it takes 2,048."""
    packing = [r for r in device_code.reports if r.kernel not in HEADS]
    for report in packing:
        assert report.registers <= MAX_REGISTERS, report
        assert report.shared_bytes == 0, report
        expected = 1536 / ARCHITECTURES[report.architecture].max_threads
        assert report.occupancy >= expected, report


def test_heads_share_a_multiprocessor(device_code: DeviceCode) -> None:
    """16 warps: while some wait for memory or at a barrier, others multiply. Shared memory is
    static, so no launch has to ask for more than every GPU gives.
    """
    for report in device_code.reports:
        if report.kernel in HEADS:
            assert 0 < report.shared_bytes <= 48 * 1024, report
            assert report.resident_blocks * report.block_threads >= 512, report


def test_threads_of_a_block_are_the_plans(device_code: DeviceCode) -> None:
    """What occupancy is reckoned with is what the kernels are compiled for."""
    found = re.findall(r"\.entry (\w+)\(.*?\.maxntid (\d+)", device_code.ptx, re.DOTALL)
    assert {kernel for kernel, _ in found} == {r.kernel for r in device_code.reports}
    threads = {r.kernel: r.block_threads for r in device_code.reports}
    for kernel, compiled_for in found:
        assert threads[kernel] == int(compiled_for), kernel


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_heads_multiply_on_tensor_cores(device_code: DeviceCode, architecture: str) -> None:
    """And read what they multiply 16 bytes at a time: queries from global memory, the operands of
    dense stages from both (the loads of single halves are for unaligned inputs).
    """
    heads = device_code.of_heads(architecture)
    assert set(heads) == HEADS
    for kernel, instructions in heads.items():
        which = f"{architecture} {kernel}"
        hot = list(inner_loops(instructions, "HMMA.16816.F32"))
        codes = [[opcode(text) for text in body] for body in hot]
        loads = [{code for code in body if code.startswith("LDG")} for body in codes]
        wide = {"LDG.E.128.CONSTANT"}
        if kernel.startswith("packed_attention_pool"):
            # Scores, of few and of all tokens where a tile has more than 16.
            scores = [found for found in loads if found]
            assert scores == [wide] * (1 if kernel.endswith("float16") else 2), which
            # Pooling: 4 units of 32 features, no load from global memory between the products.
            products = [a for a, text in instructions if "HMMA.16816.F32" in text]
            assert len(products) >= 16, which
            last = [i for i, (a, _) in enumerate(instructions) if a in products[-16:]]
            pooling = [text for _, text in instructions[last[0] : last[-1]]]
            assert not any("LDG" in text for text in pooling), which
        else:
            assert len(hot) == 1, which
            assert loads[0] - wide <= {"LDG.E.U16.CONSTANT"} < loads[0], which
            assert {code for code in codes[0] if code.startswith("LDS")} == {"LDS.128"}, which


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hot_loops_load_16_bytes(device_code: DeviceCode, architecture: str) -> None:
    """A round's loads are all on their way before its first sum."""
    checked = 0
    for kernel, instructions in device_code.of_packing(architecture).items():
        if not kernel.endswith("_vector"):
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
    assert checked == NUM_PACKING / 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loads_of_8_tokens_are_on_their_way(device_code: DeviceCode, architecture: str) -> None:
    """Before the first of them is needed: one thread walks along a text."""
    kernels = device_code.of_positions(architecture)
    assert set(kernels) == POSITIONS
    for kernel, instructions in kernels.items():
        rounds = []
        for body in loading_loops(instructions):
            opcodes = [opcode(text) for text in body]
            loads = [i for i, code in enumerate(opcodes) if code.startswith("LDG")]
            first = next(i for i, code in enumerate(opcodes) if re.match("FADD|FSEL|FSETP", code))
            assert max(loads) < first, (kernel, opcodes)
            rounds.append(len(loads))
        # A maximum, a sum and a weighted sum, and what is left of each.
        assert sorted(rounds) == [1, 1, 1, 8, 8, 8], (kernel, rounds)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_fused_multiply_add_in_sums(device_code: DeviceCode, architecture: str) -> None:
    """A correctly rounded division is made of them, and of steps that flush; nothing else is."""
    inexact = re.compile(r"^(FFMA|HFMA2|FADD2|FMUL2|F\w+\.(.*\.)?FTZ)")
    zero = re.compile(r"^HFMA2(\.MMA)? R\d+, -RZ, RZ, ")  # how the compiler writes a constant
    kernels = device_code.of_packing(architecture) | device_code.of_positions(architecture)
    for kernel, instructions in kernels.items():
        texts = [text for _, text in instructions]
        if kernel in POSITIONS or re.search("_(uint8|half)_(vector|scalar)$", kernel):
            # The mean divides, after the loops.
            assert any(opcode(text).startswith("FFMA") for text in texts)
            texts = [text for body in loading_loops(instructions) for text in body]
        texts = [re.sub(r"^@!?U?P\w+ +", "", text) for text in texts]
        assert any(text.startswith("FADD ") for text in texts)
        found = [text for text in texts if inexact.match(text) and not zero.match(text)]
        assert not found, f"{architecture} {kernel}"


def test_reports_are_read_as_printed() -> None:
    text = """ptxas info    : Compiling entry function 'pool_and_pack_a' for 'sm_90'
ptxas info    : Function properties for pool_and_pack_a
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 33 registers, used 0 barriers, 16 bytes cumulative stack size, 64 bytes smem
ptxas info    : Compiling entry function 'pool_and_pack_b' for 'sm_86'
ptxas info    : Function properties for pool_and_pack_b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
ptxas info    : Compiling entry function 'packed_attention_pool_c' for 'sm_86'
ptxas info    : Function properties for packed_attention_pool_c
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 40000 bytes smem
"""
    first, second, third = parse_report(text)
    assert first == KernelResources("pool_and_pack_a", "sm_90", 33, 16, 12, 64)
    assert second == KernelResources("pool_and_pack_b", "sm_86", 40, 0, 0, 0)
    assert third == KernelResources("packed_attention_pool_c", "sm_86", 64, 0, 0, 40000)
    assert (first.occupancy, second.occupancy) == (0.75, 1.0)
    assert (third.resident_blocks, third.occupancy) == (2, 1 / 3)  # shared memory is what runs out


def test_a_missing_compiler_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExportError, match=r"nvcc: found neither .* pip install -e '\.\[device\]'"):
        find_tool("nvcc")


@pytest.mark.long
def test_a_wheel_carries_the_device_code(tmp_path: Path) -> None:
    """What `bitheads device-code` wrote, beside the module that launches it."""
    if not DEVICE_CODE.exists():
        pytest.skip(f"{DEVICE_CODE} is not there, type: make device")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = archive.read(f"bitheads/engine/device/{DEVICE_CODE.name}")
        names = archive.namelist()
    assert carried == read_device_code(DEVICE_CODE)
    assert "bitheads/engine/device/bitheads.json" in names
