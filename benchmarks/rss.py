"""Memory of this process; imports nothing of the project, so that any Python can ask."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Most memory this process had at a time, shared libraries included.

    Not `getrusage`, whose maximum begins with what the parent had when it made the child.
    """
    return _status_bytes("VmHWM:")


def now_bytes() -> int:
    """Memory this process has now."""
    return _status_bytes("VmRSS:")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
