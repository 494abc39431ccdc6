"""The software CUDA driver: compiled here, loaded in place of NVIDIA's, asked what it saw.

`python tests/device/software_driver.py --pycuda-settings` compiles it and prints how pycuda is to
be built with it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCES = Path(__file__).parent / "software_cuda"
SONAME = "libcuda.so.1"
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-pthread"]
SANITIZED = ["-fno-sanitize-recover=all"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]

# cuda.h's numbers for what tests inject.
OUT_OF_MEMORY, LAUNCH_OUT_OF_RESOURCES, LAUNCH_FAILED = 2, 701, 719

_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class SoftwareDriverError(Exception):
    """It cannot be built or loaded; the message says what to do."""


def find_headers() -> Path:
    """The folder of cuda.h.

    Raises:
        SoftwareDriverError: NVIDIA's headers are not installed.
    """
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for header in sorted(Path(folder).glob("cu*/include/cuda.h"), reverse=True):
            return header.parent
    raise SoftwareDriverError("found no cuda.h among this environment's packages: make device")


def build(sanitizers: str = os.environ.get("BITHEADS_SANITIZE", "")) -> Path:
    """Compiles the library into build/software-cuda if a source is newer.

    Args:
        sanitizers: as -fsanitize= takes them; Python must then run with their runtime preloaded.
    Raises:
        SoftwareDriverError: NVIDIA's headers are not installed.
    """
    folder = ROOT / f"build/software-cuda{'-' if sanitizers else ''}{sanitizers}"
    library = folder / SONAME
    folder.mkdir(parents=True, exist_ok=True)
    flags = [*FLAGS, *([f"-fsanitize={sanitizers}", *SANITIZED] if sanitizers else [])]
    headers = max(path.stat().st_mtime for path in SOURCES.glob("*.h"))

    def compiled(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        newest = max(headers, source.stat().st_mtime)
        if not target.exists() or target.stat().st_mtime < newest:
            _compile(
                [*flags, *WARNINGS, "-isystem", str(find_headers()), "-c", str(source)], target
            )
        return target

    with ThreadPoolExecutor(max_workers=2) as threads:
        objects = list(threads.map(compiled, sorted(SOURCES.glob("*.cpp"))))
    newest = max(path.stat().st_mtime for path in objects)
    if not library.exists() or library.stat().st_mtime < newest:
        _compile([*flags, "-shared", f"-Wl,-soname,{SONAME}", *map(str, objects), "-ldl"], library)
    link = folder / "libcuda.so"  # what a linker looks for
    if not link.is_symlink():
        link.symlink_to(SONAME)
    return library


def _compile(arguments: list[str], target: Path) -> None:
    """Runs the compiler; what is at `target` is complete at any time."""
    made = target.with_suffix(f".{os.getpid()}")
    # A preloaded sanitizer is for the tests, not for the compiler.
    environment = {name: v for name, v in os.environ.items() if name != "LD_PRELOAD"}
    command = [os.environ.get("CXX", "c++"), *arguments, "-o", str(made)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    made.replace(target)


class SoftwareCuda:
    """The loaded driver.

    Load it before anything imports `pycuda.driver`: the dynamic linker then takes it for
    libcuda.so.1, whether or not the machine has NVIDIA's.

    Attributes:
        library: the driver itself, to call what pycuda does not wrap.
        ignored: names of `live` that a test leaves behind on purpose.
    """

    def __init__(self, path: Path, kernels: Path) -> None:
        """Loads the driver at `path`, its modules' kernels from the library `kernels`.

        Raises:
            SoftwareDriverError: another libcuda.so.1 is already in this process.
        """
        self.library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        if not hasattr(ctypes.CDLL(SONAME), "soft_reset"):
            raise SoftwareDriverError("another CUDA driver is already loaded in this process")
        for name in ("soft_counters", "soft_take_errors", "soft_live"):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.library.soft_counter.restype = ctypes.c_uint64
        if self.library.soft_set_kernels(str(kernels).encode()):
            raise SoftwareDriverError(f"{kernels} has no run_kernel_on_host")
        self.ignored: set[str] = set()
        self._enqueued: list[object] = []  # a callback must outlive the work that calls it

    @property
    def is_sanitized(self) -> bool:
        """Whether a stray access ends the process with a report of the sanitizer."""
        return bool(os.environ.get("BITHEADS_SANITIZE"))

    def reset(self) -> None:
        """Forgets everything. Handles and addresses from before stay invalid for good."""
        self.library.soft_reset()
        self._enqueued.clear()
        self.ignored.clear()

    def set_total_memory(self, num_bytes: int) -> None:
        """What the device has; more than that is out of memory."""
        self.library.soft_set_total_memory(ctypes.c_uint64(num_bytes))

    def set_compute_capability(self, major: int, minor: int) -> None:
        self.library.soft_set_compute_capability(major, minor)

    def set_eager(self, is_eager: bool) -> None:
        """Work runs when it is submitted, instead of when something waits for it."""
        self.library.soft_set_eager(int(is_eager))

    def set_random(self, seed: int) -> None:
        """Work runs at any time that streams and events allow, as the seed has it; 0: at the
        latest. A program that orders its work well gives the same result for every seed: one that
        overwrites what another stream still reads does not, though the lazy order may hide it."""
        self.library.soft_set_random(ctypes.c_uint64(seed))

    def fail(
        self, name: str, after_calls: int = 0, times: int = 1, status: int = OUT_OF_MEMORY
    ) -> None:
        """Lets calls fail: the next, or those after `after_calls` more.

        pycuda answers out of memory with a garbage collection and a second try: it takes two
        `times` to see one error.

        Args:
            name: an entry point without its _v2, such as cuMemAlloc or cuLaunchKernel, or
                "execution" for a kernel that fails when it runs.
            status: the CUresult they give.
        """
        counts = (ctypes.c_uint64(after_calls), ctypes.c_uint64(times))
        self.library.soft_fail(name.encode(), *counts, status)

    def counter(self, name: str) -> int:
        """How often or how much; 0 if never. `counters()` has the names."""
        return int(self.library.soft_counter(name.encode()))

    def counters(self) -> dict[str, int]:
        """All that is not 0: launches, launches:KERNEL, graph_launches, calls:ENTRY_POINT,
        bytes_to_device, bytes_to_host, bytes_on_device, bytes_set, synchronizations,
        pageable_async_copies, host_functions, captured_operations, device_bytes_peak."""
        return _parse(self.library.soft_counters())

    def reset_counters(self) -> None:
        self.library.soft_reset_counters()

    def live(self) -> dict[str, int]:
        """What exists now: device_allocations, device_bytes, host_allocations, streams, events,
        modules, graphs, graph_execs, contexts, pending_operations."""
        return _parse(self.library.soft_live())

    def take_errors(self) -> list[str]:
        """Every misuse since the last call; whoever takes them has dealt with them."""
        return str(self.library.soft_take_errors().decode()).splitlines()

    def enqueue(
        self,
        stream_handle: int,
        function: Callable[[], object],
        touches: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Puts a Python function into a stream as if it were the device's work.

        It runs where the stream gets to it, in the graph too if the stream is captured, and may
        use device memory through its addresses. An exception in it becomes an error.

        Args:
            stream_handle: `Stream.handle` of pycuda.
            touches: pairs (address, bytes) that it uses: all of them must exist now, and then.
        Raises:
            RuntimeError: the driver refused; `args[0]` is the CUresult.
        """

        def run(_: object) -> None:
            try:
                function()
            except BaseException as error:
                self.library.soft_report(f"an enqueued function raised {error!r}".encode())

        callback = _HostFunction(run)
        self._enqueued.append(callback)
        flat = [number for pair in touches for number in pair]
        status = self.library.soft_enqueue_host_function(
            ctypes.c_void_p(stream_handle),
            callback,
            None,
            (ctypes.c_uint64 * len(flat))(*flat),
            ctypes.c_uint64(len(touches)),
        )
        if status:
            raise RuntimeError(status)


def _parse(text: bytes) -> dict[str, int]:
    pairs = (line.split() for line in text.decode().splitlines())
    return {name: int(value) for name, value in pairs if int(value)}


def pycuda_settings() -> str:
    """What goes into pycuda's .aksetup-defaults.py."""
    return (
        "CUDA_ENABLE_CURAND = False\n"
        f"CUDA_INC_DIR = [{str(find_headers())!r}]\n"
        f"CUDADRV_LIB_DIR = [{str(build(sanitizers='').parent)!r}]\n"
    )


if __name__ == "__main__":
    assert sys.argv[1:] == ["--pycuda-settings"], sys.argv
    print(pycuda_settings(), end="")
