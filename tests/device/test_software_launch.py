"""Modules, launches and graphs of the software CUDA driver, seen through the real pycuda."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import host_kernels
import numpy as np
import pytest
from host_kernels import HostKernels
from kernel_cases import (
    MODES,
    assert_same_codes,
    expected_codes,
    make_layers,
    make_options,
    shuffled_offsets,
)
from numpy.typing import NDArray
from planned_launch import PlannedLaunch, plan_pool_and_pack
from software_driver import LAUNCH_FAILED, SoftwareCuda

from bitheads.engine.features import pack

FAT_BINARY = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0)
ROWS, SEQ, DIM = 3, 6, 384


@pytest.fixture(scope="session")
def kernels() -> HostKernels:
    return host_kernels.build()


@dataclass
class Case:
    """A pool_and_pack whose arrays lie on the device.

    Attributes:
        memory: device allocations by name; a layer's name is its index.
        codes: pinned uint8 [num_tokens, code_bytes], for the result.
    """

    layers: list[NDArray[Any]]
    options: dict[str, Any]
    memory: dict[str, Any]
    launch: PlannedLaunch
    codes: NDArray[np.uint8]
    expected: NDArray[np.uint8]

    def check(self) -> None:
        assert_same_codes(self.codes, self.expected, self.options["quantization"], "codes")


def make_case(cuda: Any, kernels: HostKernels, dtype: str, mode: str) -> Case:
    rng = np.random.default_rng(5)
    layers = make_layers(rng, 4, (ROWS, SEQ, DIM), dtype)
    options = make_options(rng, mode, 4, DIM)
    lengths = np.array([SEQ, 2, 5])
    offsets = shuffled_offsets(rng, lengths)
    num_tokens = int(lengths.sum())
    blank = np.full((num_tokens, pack.code_bytes(DIM, options["quantization"])), 0xCB, np.uint8)
    arrays = {str(i): layer for i, layer in enumerate(layers)}
    arrays |= {"lengths": lengths, "token_offsets": offsets}
    arrays |= {
        name: value
        for name, value in options.items()
        if isinstance(value, np.ndarray) and name != "layer_weights"
    }
    memory = {name: cuda.mem_alloc(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        # pycuda takes no bfloat16: its buffer has no format
        cuda.memcpy_htod(memory[name], np.ascontiguousarray(array).view(np.uint8))
    memory["codes"] = cuda.mem_alloc(blank.nbytes)
    launch = plan_pool_and_pack(
        kernels.library,
        [(int(memory[str(i)]), layer) for i, layer in enumerate(layers)],
        {name: int(value) for name, value in memory.items() if not name.isdigit()},
        num_tokens=num_tokens,
        quantization=options["quantization"],
        order=options["order"],
        layer_weights=options.get("layer_weights"),
    )
    codes = cuda.pagelocked_empty(blank.shape, np.uint8)
    codes[:] = 0
    expected = expected_codes(layers, lengths, offsets, blank, options)
    return Case(layers, options, memory, launch, codes, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pool_and_pack(
    software_cuda: SoftwareCuda, cuda: Any, kernels: HostKernels, dtype: str, mode: str
) -> None:
    case, stream = make_case(cuda, kernels, dtype, mode), cuda.Stream(1)
    module = cuda.module_from_buffer(FAT_BINARY)
    function = module.get_function(case.launch.kernel)
    software_cuda.reset_counters()
    function(case.launch.args, grid=case.launch.grid, block=case.launch.block, stream=stream)
    cuda.memcpy_dtoh_async(case.codes, case.memory["codes"], stream)
    assert not case.codes.any()
    stream.synchronize()
    case.check()
    assert software_cuda.counter(f"launches:{case.launch.kernel}") == 1
    assert software_cuda.counter("bytes_to_host") == case.codes.nbytes
    assert software_cuda.counter("synchronizations") == 1


@pytest.fixture
def case(cuda: Any, kernels: HostKernels) -> Iterator[Case]:
    made = make_case(cuda, kernels, "float16", "sign")
    yield made
    made.memory.clear()  # before its context goes
    made.codes = np.empty(0, np.uint8)


def function_of(cuda: Any, case: Case) -> Any:
    return cuda.module_from_buffer(FAT_BINARY).get_function(case.launch.kernel)


def test_a_prepared_launch(cuda: Any, case: Case) -> None:
    """pycuda's fastest way: the argument is bytes, and nothing is asked of the driver but this."""
    stream, function = cuda.Stream(1), function_of(cuda, case)
    launch = case.launch
    function.prepare([f"{launch.args.nbytes}s"])
    function.prepared_async_call(launch.grid, launch.block, stream, bytes(launch.args))
    cuda.memcpy_dtoh_async(case.codes, case.memory["codes"], stream)
    stream.synchronize()
    case.check()


def test_modules(software_cuda: SoftwareCuda, cuda: Any) -> None:
    with pytest.raises(cuda.LogicError, match="image is invalid"):
        cuda.module_from_buffer(b"no device code")
    module = cuda.module_from_buffer(FAT_BINARY)
    with pytest.raises(cuda.LogicError, match="symbol not found"):
        module.get_function("no_such_kernel")
    assert software_cuda.live()["modules"] == 1


def test_launch_limits(software_cuda: SoftwareCuda, cuda: Any, case: Case) -> None:
    function = function_of(cuda, case)
    args, limit = case.launch.args, cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
    for grid, block, shared in (
        ((1, 1, 1), (1025, 1, 1), 0),
        ((1, 1, 1), (32, 1, 65), 0),
        ((0, 1, 1), (32, 1, 1), 0),
        ((1, 65536, 1), (32, 1, 1), 0),
        ((1, 1, 1), (32, 1, 1), 48 * 1024 + 1),
    ):
        with pytest.raises(cuda.LogicError, match="invalid argument"):
            function(args, grid=grid, block=block, shared=shared)
    assert len(software_cuda.take_errors()) == 5
    function.set_attribute(limit, 99 * 1024)
    assert function.max_dynamic_shared_size_bytes == 99 * 1024
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        function.set_attribute(limit, 99 * 1024 + 1)


def test_an_argument_of_the_wrong_size(software_cuda: SoftwareCuda, cuda: Any, case: Case) -> None:
    function = function_of(cuda, case)
    short = np.void(bytes(case.launch.args)[:-8])
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        function(short, grid=case.launch.grid, block=case.launch.block)
    assert "as argument of" in software_cuda.take_errors()[0]


def test_an_argument_that_names_host_memory(
    software_cuda: SoftwareCuda, cuda: Any, kernels: HostKernels, case: Case
) -> None:
    if software_cuda.is_sanitized:
        pytest.skip("its shadow memory makes every address look mapped")
    function = function_of(cuda, case)
    # Mapped: what lies below 4 GB, as the heap of some Pythons, could be a number as well.
    lengths = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)
    args = bytes(case.launch.args).replace(
        struct.pack("<Q", int(case.memory["lengths"])), struct.pack("<Q", lengths.ctypes.data)
    )
    with pytest.raises(cuda.LogicError, match="illegal memory access"):
        function(np.void(args), grid=case.launch.grid, block=case.launch.block)
    assert "a pointer to host memory" in software_cuda.take_errors()[0]


def test_a_kernel_that_uses_freed_memory(
    software_cuda: SoftwareCuda, cuda: Any, case: Case
) -> None:
    stream, function = cuda.Stream(1), function_of(cuda, case)
    case.memory.pop("2").free()
    function(case.launch.args, grid=case.launch.grid, block=case.launch.block, stream=stream)
    with pytest.raises(cuda.LogicError, match="illegal memory access"):
        stream.synchronize()
    assert "which was freed" in software_cuda.take_errors()[0]
    software_cuda.ignored |= {"host_allocations", "streams", "modules", "device_allocations"}


def test_a_kernel_that_reads_too_far(software_cuda: SoftwareCuda, cuda: Any, case: Case) -> None:
    """One more block of tokens, with lengths that allow it."""
    if software_cuda.is_sanitized:
        pytest.skip("the sanitizer ends the process")
    stream, function = cuda.Stream(1), function_of(cuda, case)
    cuda.memcpy_htod(case.memory["lengths"], np.full(ROWS, 10**6))
    grid = (10**4, *case.launch.grid[1:])
    function(case.launch.args, grid=grid, block=case.launch.block, stream=stream)
    with pytest.raises(cuda.LogicError, match="illegal memory access"):
        stream.synchronize()
    *damage, error = software_cuda.take_errors()
    assert error.startswith(f"kernel {case.launch.kernel}: accesses 0x")
    assert "past the end of the device allocation" in error
    assert all("written outside an allocation" in line for line in damage)
    software_cuda.ignored |= {"host_allocations", "streams", "modules", "device_allocations"}


def test_a_kernel_that_fails(software_cuda: SoftwareCuda, cuda: Any, case: Case) -> None:
    stream, function = cuda.Stream(1), function_of(cuda, case)
    software_cuda.fail("execution", status=LAUNCH_FAILED)
    function(case.launch.args, grid=case.launch.grid, block=case.launch.block, stream=stream)
    with pytest.raises(cuda.LaunchError, match="launch failure"):
        stream.synchronize()
    software_cuda.ignored |= {"host_allocations", "streams", "modules", "device_allocations"}


@contextmanager
def captured(driver: ctypes.CDLL, stream: Any) -> Iterator[ctypes.c_void_p]:
    """The graph executable of what the body puts into the stream; pycuda has no graphs."""
    handle, graph, executable = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
    assert driver.cuStreamBeginCapture_v2(handle, 0) == 0
    yield executable
    assert driver.cuStreamEndCapture(handle, ctypes.byref(graph)) == 0
    flags = ctypes.c_ulonglong(0)
    assert driver.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, flags) == 0
    assert driver.cuGraphDestroy(graph) == 0


def launch_graph(driver: ctypes.CDLL, executable: ctypes.c_void_p, stream: Any) -> None:
    assert driver.cuGraphLaunch(executable, ctypes.c_void_p(stream.handle)) == 0


def test_a_graph(software_cuda: SoftwareCuda, cuda: Any, case: Case) -> None:
    """Copy in, kernel, copy out, in two streams: replayed with what the buffers hold by then."""
    driver = software_cuda.library
    stream, second = cuda.Stream(1), cuda.Stream(1)
    function = function_of(cuda, case)
    layer = cuda.pagelocked_empty(case.layers[0].shape, np.float16)
    layer[:] = 0
    begun, done = cuda.Event(), cuda.Event()
    with captured(driver, stream) as executable:
        cuda.memcpy_htod_async(case.memory["0"], layer, stream)
        begun.record(stream)
        second.wait_for_event(begun)
        launch = case.launch
        function(launch.args, grid=launch.grid, block=launch.block, stream=second)
        done.record(second)
        stream.wait_for_event(done)
        cuda.memcpy_dtoh_async(case.codes, case.memory["codes"], stream)
    stream.synchronize()
    assert not case.codes.any()
    layer[:] = case.layers[0]
    launch_graph(driver, executable, stream)
    assert not case.codes.any()
    stream.synchronize()
    case.check()
    case.codes[:] = 0
    launch_graph(driver, executable, stream)
    stream.synchronize()
    case.check()
    assert software_cuda.counter("graph_launches") == 2
    assert driver.cuGraphExecDestroy(executable) == 0


def test_a_graph_without_an_edge(software_cuda: SoftwareCuda, cuda: Any) -> None:
    """Replay takes every freedom that the graph leaves: the copy comes before what it misses."""
    driver = software_cuda.library
    stream, second = cuda.Stream(1), cuda.Stream(1)
    memory, result = cuda.mem_alloc(100), cuda.pagelocked_empty(100, np.uint8)
    begun, done = cuda.Event(), cuda.Event()
    with captured(driver, stream) as executable:
        begun.record(stream)
        second.wait_for_event(begun)
        cuda.memset_d8_async(memory, 1, 100, stream)
        cuda.memcpy_dtoh_async(result, memory, second)
        done.record(second)
        stream.wait_for_event(done)
    launch_graph(driver, executable, stream)
    stream.synchronize()
    assert (result == 0xCB).all()
    assert driver.cuGraphExecDestroy(executable) == 0


def test_an_unjoined_stream(software_cuda: SoftwareCuda, cuda: Any) -> None:
    driver, graph = software_cuda.library, ctypes.c_void_p()
    stream, second, begun = cuda.Stream(1), cuda.Stream(1), cuda.Event()
    memory = cuda.mem_alloc(100)
    assert driver.cuStreamBeginCapture_v2(ctypes.c_void_p(stream.handle), 0) == 0
    begun.record(stream)
    second.wait_for_event(begun)
    cuda.memset_d8_async(memory, 1, 100, second)
    assert driver.cuStreamEndCapture(ctypes.c_void_p(stream.handle), ctypes.byref(graph)) == 904
    assert "nothing waits for" in software_cuda.take_errors()[0]


@pytest.mark.parametrize("forbidden", ["alloc", "synchronize", "copy", "pageable", "free"])
def test_what_a_capture_forbids(software_cuda: SoftwareCuda, cuda: Any, forbidden: str) -> None:
    driver, graph = software_cuda.library, ctypes.c_void_p()
    stream, memory, array = cuda.Stream(1), cuda.mem_alloc(100), np.zeros(100, np.uint8)
    calls = {
        "alloc": lambda: cuda.mem_alloc(100),
        "synchronize": stream.synchronize,
        "copy": lambda: cuda.memcpy_dtoh(array, memory),
        "pageable": lambda: cuda.memcpy_htod_async(memory, array, stream),
    }
    assert driver.cuStreamBeginCapture_v2(ctypes.c_void_p(stream.handle), 0) == 0
    if forbidden == "free":
        assert driver.cuMemFree_v2(ctypes.c_uint64(int(memory))) == 900
    else:
        with pytest.raises(cuda.Error, match="not permitted when stream is capturing"):
            calls[forbidden]()
    assert len(software_cuda.take_errors()) == 1
    assert driver.cuStreamEndCapture(ctypes.c_void_p(stream.handle), ctypes.byref(graph)) == 901
    assert software_cuda.take_errors() == []


def test_a_python_function_in_a_graph(software_cuda: SoftwareCuda, cuda: Any) -> None:
    driver, stream, calls = software_cuda.library, cuda.Stream(1), []
    with captured(driver, stream) as executable:
        software_cuda.enqueue(stream.handle, lambda: calls.append(1))
    assert calls == []
    for _ in range(3):
        launch_graph(driver, executable, stream)
    assert calls == []
    stream.synchronize()
    assert calls == [1, 1, 1]
    assert driver.cuGraphExecDestroy(executable) == 0
