"""How many processor cores this process has: those it may run on, or fewer if it has a quota.

The rule, which `host/` has as well:

- `affinity` is the number of processors in the process's affinity mask (sched_getaffinity); of all,
  on systems without such masks, such as macOS.
- `/proc/self/cgroup` names the process's control groups. The line `0::PATH` is of version 2, whose
  files are under `/sys/fs/cgroup`; a line `N:CONTROLLERS:PATH` whose comma-separated list has `cpu`
  is of version 1, whose files are under `/sys/fs/cgroup/CONTROLLERS` where there is such a folder,
  else under `/sys/fs/cgroup/cpu`. Lines of other controllers say nothing.
- A group's quota is in `cpu.max`, two words, QUOTA PERIOD (version 2; no quota if QUOTA is `max`),
  or in `cpu.cfs_quota_us` and `cpu.cfs_period_us` (version 1; no quota if it is -1). What is not a
  number above 0, or missing, is no quota.
- The group is PATH under that folder, and every parent counts, up to and with that folder itself:
  in a container, PATH is often not there, but the folder is the container's own group.
- Of all quotas the smallest share QUOTA / PERIOD counts, rounded up: half a core is one thread, and
  so is a whole one; one and a half are two.
- The process has min(affinity, that) cores, at least 1.

`PYTHON_CPU_COUNT` changes nothing, as it changes nothing for libraries: pass `threads`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
GROUP_FILES = Path("/sys/fs/cgroup")
PROCESSORS = Path("/sys/devices/system/cpu")


def allowed_processors() -> set[int]:
    """Numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def count_cores() -> int:
    """Threads that this process can run at the same time: by its affinity and its quota."""
    return choose_threads() or len(allowed_processors())


def choose_threads() -> int | None:
    """What to tell a library that counts processors by itself: None unless a quota is lower."""
    quota = quota_cores()
    return quota if quota is not None and quota < len(allowed_processors()) else None


def count_physical_cores(processors: Path = PROCESSORS) -> int:
    """Cores as `count_cores` counts them, but processors that share one count once."""
    allowed = allowed_processors()
    cores = {_core(processors / f"cpu{number}" / "topology") or str(number) for number in allowed}
    return min(len(cores), choose_threads() or len(cores))


def quota_cores(groups: Path = GROUPS, files: Path = GROUP_FILES) -> int | None:
    """Cores of the processor quota, rounded up; None if there is none. See the module's rule.

    Args:
        groups: what names this process's control groups.
        files: where control groups are folders.
    """
    quotas = [
        max(1, -(-quota // period)) for quota, period in _quotas(groups, files) if quota and period
    ]
    return min(quotas, default=None)


def _quotas(groups: Path, files: Path) -> Iterator[tuple[int, int]]:
    """Quota and period of every group and its parents, in microseconds; 0 for none."""
    for line in _read(groups).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _up(files, path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield _microseconds(quota), _microseconds(period)
        elif "cpu" in controllers.split(","):
            root = files / controllers
            for folder in _up(root if root.is_dir() else files / "cpu", path):
                yield (
                    _microseconds(_read(folder / "cpu.cfs_quota_us")),
                    _microseconds(_read(folder / "cpu.cfs_period_us")),
                )


def _up(root: Path, path: str) -> Iterator[Path]:
    """The group's folder, its parents, and the root."""
    names = [name for name in path.split("/") if name not in ("", ".", "..")]
    for end in range(len(names), -1, -1):
        yield root.joinpath(*names[:end])


def _core(topology: Path) -> str:
    return _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")


def _microseconds(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
