"""The software CUDA driver behaves like a device, seen through the real pycuda."""

from __future__ import annotations

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from software_driver import SoftwareCuda

SIZE = 1000


def filled(cuda: Any, value: int, dtype: type = np.uint8) -> Any:
    """Pinned memory of SIZE items."""
    array = cuda.pagelocked_empty(SIZE, dtype)
    array[:] = value
    return array


def on_device(cuda: Any, array: Any) -> Any:
    memory = cuda.mem_alloc(array.nbytes)
    cuda.memcpy_htod(memory, array)
    return memory


def from_device(cuda: Any, memory: Any, size: int = SIZE) -> Any:
    array = np.empty(size, np.uint8)
    cuda.memcpy_dtoh(array, memory)
    return array


def test_the_device(software_cuda: SoftwareCuda, cuda: Any) -> None:
    device = cuda.Device(0)
    assert cuda.Device.count() == 1
    assert device.name() == "software device"
    assert device.compute_capability() == (8, 6)
    software_cuda.set_compute_capability(9, 0)
    assert device.compute_capability() == (9, 0)
    optin = cuda.device_attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    assert device.get_attribute(optin) == 227 * 1024
    assert len(device.get_attributes()) > 50


def test_copies_there_and_back(cuda: Any) -> None:
    data = np.arange(SIZE, dtype=np.uint8)
    memory = on_device(cuda, data)
    other = cuda.mem_alloc(SIZE)
    cuda.memcpy_dtod(other, memory, SIZE)
    np.testing.assert_array_equal(from_device(cuda, other), data)
    cuda.memset_d8(int(other) + 10, 7, 5)
    data[10:15] = 7
    np.testing.assert_array_equal(from_device(cuda, other), data)


def test_fresh_memory_is_not_zero(cuda: Any) -> None:
    assert (from_device(cuda, cuda.mem_alloc(SIZE)) == 0xCB).all()
    assert (cuda.pagelocked_empty(SIZE, np.uint8) == 0xCB).all()


def test_a_result_is_not_there_before_it_is_waited_for(cuda: Any) -> None:
    stream = cuda.Stream()
    memory, result = on_device(cuda, filled(cuda, 3)), filled(cuda, 0)
    cuda.memcpy_dtoh_async(result, memory, stream)
    assert not result.any()
    stream.synchronize()
    assert (result == 3).all()


def test_pinned_memory_is_read_when_the_copy_runs(cuda: Any) -> None:
    """Who reuses a pinned buffer too early sends the wrong bytes."""
    stream = cuda.Stream()
    source, memory = filled(cuda, 3), cuda.mem_alloc(SIZE)
    cuda.memcpy_htod_async(memory, source, stream)
    source[:] = 4
    stream.synchronize()
    assert (from_device(cuda, memory) == 4).all()


def test_pageable_memory_is_read_at_once(software_cuda: SoftwareCuda, cuda: Any) -> None:
    stream = cuda.Stream()
    source, memory = np.full(SIZE, 3, np.uint8), cuda.mem_alloc(SIZE)
    cuda.memcpy_htod_async(memory, source, stream)
    source[:] = 4
    assert software_cuda.counter("pageable_async_copies") == 1
    assert (from_device(cuda, memory) == 3).all()  # blocking streams come before a blocking copy
    cuda.memcpy_dtoh_async(source, memory, stream)
    assert (source == 3).all()
    assert software_cuda.counter("pageable_async_copies") == 2


def test_eager_work_runs_at_once(software_cuda: SoftwareCuda, cuda: Any) -> None:
    software_cuda.set_eager(True)
    memory, result = on_device(cuda, filled(cuda, 3)), filled(cuda, 0)
    cuda.memcpy_dtoh_async(result, memory, cuda.Stream())
    assert (result == 3).all()


@pytest.mark.parametrize("waits", [False, True])
def test_streams_are_ordered_by_events_alone(cuda: Any, waits: bool) -> None:
    non_blocking = cuda.stream_flags.NON_BLOCKING if hasattr(cuda, "stream_flags") else 1
    first, second = cuda.Stream(non_blocking), cuda.Stream(non_blocking)
    source, memory, result = filled(cuda, 3), cuda.mem_alloc(SIZE), filled(cuda, 0)
    cuda.memcpy_htod_async(memory, source, first)
    done = cuda.Event().record(first)
    if waits:
        second.wait_for_event(done)
    cuda.memcpy_dtoh_async(result, memory, second)
    second.synchronize()
    assert (result == (3 if waits else 0xCB)).all()
    assert done.query() == waits
    first.synchronize()


def test_an_event_means_what_was_recorded_last(cuda: Any) -> None:
    stream, event = cuda.Stream(), cuda.Event()
    a, b, memory = filled(cuda, 1), filled(cuda, 2), cuda.mem_alloc(SIZE)
    event.record(stream)
    event.synchronize()
    cuda.memcpy_htod_async(memory, a, stream)
    event.record(stream)
    assert not event.query()
    cuda.memcpy_htod_async(memory, b, stream)
    event.synchronize()
    result = filled(cuda, 0)
    other = cuda.Stream(1)
    cuda.memcpy_dtoh_async(result, memory, other)
    other.synchronize()
    assert (result == 1).all()
    stream.synchronize()


def test_polling_makes_progress(cuda: Any) -> None:
    stream = cuda.Stream()
    memory, result = on_device(cuda, filled(cuda, 3)), filled(cuda, 0)
    cuda.memcpy_dtoh_async(result, memory, stream)
    done = cuda.Event().record(stream)
    polls = 1
    while not done.query():
        polls += 1
    assert (result == 3).all()
    assert polls == 3
    assert stream.is_done()


def test_time_passes(cuda: Any) -> None:
    begin, end = cuda.Event(), cuda.Event()
    begin.record()
    cuda.memset_d8(cuda.mem_alloc(SIZE), 0, SIZE)
    end.record()
    end.synchronize()
    assert end.time_since(begin) >= 0


@pytest.mark.parametrize("shift", [-1, 1])
def test_copies_stay_inside(software_cuda: SoftwareCuda, cuda: Any, shift: int) -> None:
    memory, data = cuda.mem_alloc(SIZE), np.zeros(SIZE, np.uint8)
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        cuda.memcpy_htod(int(memory) + shift, data)
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        cuda.memcpy_dtoh(data, int(memory) + shift)
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        cuda.memset_d8(int(memory) + shift, 0, SIZE)
    errors = software_cuda.take_errors()
    assert len(errors) == 3
    assert all(f"the device allocation of {SIZE} bytes" in error for error in errors)


def test_a_pinned_buffer_that_is_too_small(software_cuda: SoftwareCuda, cuda: Any) -> None:
    memory, small = cuda.mem_alloc(SIZE), cuda.pagelocked_empty(SIZE - 1, np.uint8)
    long = np.lib.stride_tricks.as_strided(small, (SIZE,))
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        cuda.memcpy_dtoh(long, memory)
    assert "pinned allocation of 999 bytes" in software_cuda.take_errors()[0]


def test_out_of_memory(software_cuda: SoftwareCuda, cuda: Any) -> None:
    software_cuda.set_total_memory(10 * 1024)
    memory = cuda.mem_alloc(9 * 1024)
    assert cuda.mem_get_info() == (1024, 10 * 1024)
    with pytest.raises(cuda.MemoryError):
        cuda.mem_alloc(1025)
    memory.free()
    cuda.mem_alloc(10 * 1024).free()
    assert software_cuda.counter("device_bytes_peak") == 10 * 1024


def test_a_call_that_fails(software_cuda: SoftwareCuda, cuda: Any) -> None:
    software_cuda.fail("cuMemAlloc", after_calls=1, times=2)
    memory = cuda.mem_alloc(SIZE)
    with pytest.raises(cuda.MemoryError):
        cuda.mem_alloc(SIZE)
    cuda.mem_alloc(SIZE).free()
    memory.free()


def test_memory_freed_too_early(software_cuda: SoftwareCuda, cuda: Any) -> None:
    stream, source, memory = cuda.Stream(), filled(cuda, 3), cuda.mem_alloc(SIZE)
    cuda.memcpy_htod_async(memory, source, stream)
    memory.free()
    [error] = software_cuda.take_errors()
    assert "which work not yet run names: cuMemcpyHtoDAsync of 1000 bytes" in error
    with pytest.raises(cuda.LogicError, match="illegal memory access"):
        stream.synchronize()
    [error] = software_cuda.take_errors()
    assert "which was freed" in error
    with pytest.raises(cuda.LogicError, match="illegal memory access"):  # from now on
        cuda.mem_alloc(SIZE)
    software_cuda.ignored |= {"host_allocations", "streams"}


def test_a_pinned_buffer_freed_too_early(software_cuda: SoftwareCuda, cuda: Any) -> None:
    """As a temporary is: pycuda keeps no reference for the copy."""
    stream, memory = cuda.Stream(), cuda.mem_alloc(SIZE)
    cuda.memcpy_htod_async(memory, filled(cuda, 3), stream)
    [error] = software_cuda.take_errors()
    assert "cuMemFreeHost frees" in error
    with pytest.raises(cuda.LogicError, match="illegal memory access"):
        stream.synchronize()
    assert "which was freed" in "".join(software_cuda.take_errors())
    software_cuda.ignored.add("streams")


def test_a_use_after_free(software_cuda: SoftwareCuda, cuda: Any) -> None:
    address = int(cuda.mem_alloc(SIZE))  # freed at once
    with pytest.raises(cuda.LogicError):
        cuda.memcpy_dtoh(np.zeros(1, np.uint8), address)
    assert "which was freed" in "".join(software_cuda.take_errors())


def test_a_stray_write_past_the_end(software_cuda: SoftwareCuda, cuda: Any) -> None:
    memory = cuda.mem_alloc(SIZE)
    if not software_cuda.is_sanitized:
        memory.as_buffer(SIZE + 1)[SIZE] = 1
        memory.free()
        [error] = software_cuda.take_errors()
        assert "0 bytes past the end of the device allocation of 1000 bytes" in error


def test_a_call_without_a_context(software_cuda: SoftwareCuda) -> None:
    import pycuda.driver as cuda

    cuda.init()
    with pytest.raises(cuda.LogicError, match="context"):
        cuda.mem_alloc(SIZE)
    assert software_cuda.take_errors()


def test_what_is_left_in_a_context(software_cuda: SoftwareCuda) -> None:
    import pycuda.driver as cuda

    cuda.init()
    context = cuda.Device(0).make_context()
    memory = cuda.mem_alloc(SIZE)
    context.pop()
    context.detach()
    [error] = software_cuda.take_errors()
    assert "destroyed with 1 allocations of 1000 bytes" in error
    del memory


def test_a_stub_is_heard_of(software_cuda: SoftwareCuda, cuda: Any) -> None:
    with pytest.raises(cuda.LogicError, match="not supported"):
        cuda.mem_alloc_pitch(100, 100, 4)
    assert software_cuda.take_errors() == [
        "cuMemAllocPitch_v2 is not modelled by the software driver"
    ]


def test_a_python_function_as_work(software_cuda: SoftwareCuda, cuda: Any) -> None:
    stream, memory = cuda.Stream(), cuda.mem_alloc(SIZE)
    view = np.frombuffer(memory.as_buffer(SIZE), np.uint8)
    cuda.memset_d8_async(memory, 1, SIZE, stream)

    def add_one() -> None:
        view[:] += 1

    software_cuda.enqueue(stream.handle, add_one, touches=[(int(memory), SIZE)])
    result = filled(cuda, 0)
    cuda.memcpy_dtoh_async(result, memory, stream)
    assert not result.any()
    stream.synchronize()
    assert (result == 2).all()
    with pytest.raises(RuntimeError, match="1"):
        software_cuda.enqueue(stream.handle, add_one, touches=[(int(memory), SIZE + 1)])
    assert "1001 bytes" in software_cuda.take_errors()[0]


def test_a_buffer_overwritten_too_early(software_cuda: SoftwareCuda, cuda: Any) -> None:
    """The lazy order hides it: the reader is waited for before the writer. Some seed shows it."""
    reader, writer = cuda.Stream(1), cuda.Stream(1)
    next_batch, result = filled(cuda, 4), filled(cuda, 0)
    memory = cuda.mem_alloc(SIZE)
    seen = []
    for seed in range(20):
        software_cuda.set_random(seed)
        cuda.memset_d8(memory, 3, SIZE)
        cuda.Context.synchronize()
        cuda.memcpy_dtoh_async(result, memory, reader)
        cuda.memcpy_htod_async(memory, next_batch, writer)
        reader.synchronize()
        seen.append(int(result[0]))
        writer.synchronize()
    assert seen[0] == 3
    assert set(seen) == {3, 4}


@pytest.mark.parametrize("seed", range(5))
def test_events_hold_at_random(software_cuda: SoftwareCuda, cuda: Any, seed: int) -> None:
    """Two buffers in turn, uploads and downloads in streams of their own: events in both ways."""
    software_cuda.set_random(seed)
    upload, download = cuda.Stream(1), cuda.Stream(1)
    sources = [cuda.pagelocked_empty(SIZE, np.uint8) for _ in range(2)]
    results = [cuda.pagelocked_empty(SIZE, np.uint8) for _ in range(2)]
    buffers = [cuda.mem_alloc(SIZE) for _ in range(2)]
    filled_events = [cuda.Event() for _ in range(2)]
    read_events = [cuda.Event() for _ in range(2)]
    for i in range(10):
        at = i % 2
        if i >= 2:
            read_events[at].synchronize()
            assert (results[at] == i - 2).all()
        sources[at][:] = i
        cuda.memcpy_htod_async(buffers[at], sources[at], upload)
        filled_events[at].record(upload)
        download.wait_for_event(filled_events[at])
        cuda.memcpy_dtoh_async(results[at], buffers[at], download)
        read_events[at].record(download)
    download.synchronize()


def test_threads(software_cuda: SoftwareCuda, cuda: Any) -> None:
    """One waits for work that is written in Python while another submits, polls and allocates."""
    stream, other = cuda.Stream(1), cuda.Stream(1)
    calls: list[int] = []
    for i in range(100):
        software_cuda.enqueue(stream.handle, lambda i=i: (time.sleep(0.001), calls.append(i)))
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            assert software_cuda.library.cuDevicePrimaryCtxRetain(ctypes.byref(handle), 0) == 0
            assert software_cuda.library.cuCtxPushCurrent_v2(handle) == 0
            stream.synchronize()
            assert software_cuda.library.cuCtxPopCurrent_v2(None) == 0
            assert software_cuda.library.cuDevicePrimaryCtxRelease_v2(0) == 0
        except BaseException as error:
            failures.append(error)

    handle = ctypes.c_void_p()
    thread = threading.Thread(target=wait)
    thread.start()
    pinned = filled(cuda, 3)
    event = cuda.Event()
    while len(calls) < 100:
        memory = cuda.mem_alloc(SIZE)
        cuda.memcpy_htod_async(memory, pinned, other)
        event.record(other).query()
        other.synchronize()
        memory.free()
    thread.join()
    assert calls == list(range(100))
    assert not failures


def test_another_thread_has_no_context(software_cuda: SoftwareCuda, cuda: Any) -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(cuda.LogicError, match="context"):
        threads.submit(cuda.mem_get_info).result()
    assert "needs a current context in this thread" in software_cuda.take_errors()[0]


def test_registered_memory(software_cuda: SoftwareCuda, cuda: Any) -> None:
    """Through the driver: `register_host_memory` of pycuda 2026.1 crashes with NumPy 2.4."""
    driver, array = software_cuda.library, np.ones(SIZE, np.uint8)
    data, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(SIZE)
    assert driver.cuMemHostRegister_v2(data, size, 0) == 0
    assert driver.cuMemHostRegister_v2(data, size, 0) == 712
    memory, stream = cuda.mem_alloc(SIZE), cuda.Stream()
    cuda.memcpy_htod_async(memory, array, stream)
    array[:] = 2
    stream.synchronize()
    assert (from_device(cuda, memory) == 2).all()
    assert software_cuda.counter("pageable_async_copies") == 0
    assert driver.cuMemHostUnregister(data) == 0
