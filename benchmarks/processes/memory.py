"""Memory of a process, and of the machine.

Imports nothing of the project, so that any Python can ask.
"""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Most memory this process had at a time, shared libraries included.

    Not `getrusage`, whose maximum begins with what the parent had when it made the child.
    """
    return _bytes(Path("/proc/self/status"), "VmHWM")


def now_bytes(pid: int | str = "self") -> int:
    """Memory a process has now, this one by default. Raises OSError if there is none."""
    return _bytes(Path(f"/proc/{pid}/status"), "VmRSS")


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    return _bytes(Path("/proc/meminfo"), "MemAvailable")


def _bytes(file: Path, field: str) -> int:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{file} has no {field}")
