"""Processor quotas of control groups, as files say them, and of a group that is made here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_build import build, run
from test_host_process import busy, threads_of

UNIFIED = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
SPLIT = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu\n"


@pytest.fixture(scope="module")
def find_quota(host_build: Path) -> Path:
    build(host_build, "find_quota")
    return host_build / "find_quota"


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "expected"),
    [
        pytest.param("", "", {}, 0, id="nothing"),
        pytest.param(UNIFIED, "0::/\n", {}, 0, id="no quota"),
        pytest.param(UNIFIED, "0::/\n", {"cpu.max": "max 100000"}, 0, id="no quota, in words"),
        pytest.param(UNIFIED, "0::/\n", {"cpu.max": "50000 100000"}, 1, id="half a core"),
        pytest.param(UNIFIED, "0::/\n", {"cpu.max": "100000 100000"}, 1, id="a core"),
        pytest.param(UNIFIED, "0::/\n", {"cpu.max": "150001 50000"}, 4, id="a little over three"),
        pytest.param(UNIFIED, "0::/\n", {"cpu.max": "nonsense"}, 0, id="nonsense"),
        pytest.param(UNIFIED, "0::/\n", {"cpu.max": "50000 0"}, 0, id="no period"),
        pytest.param(
            UNIFIED,
            "0::/a/b/c\n",
            {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "9 1"},
            2,
            id="of a group above",
        ),
        pytest.param(
            UNIFIED, "0::/a\n", {"cpu.max": "max 1", "b/cpu.max": "1 1"}, 0, id="of another group"
        ),
        pytest.param(
            UNIFIED, "0::/../b\n", {"cpu.max": "3 1", "b/cpu.max": "1 1"}, 3, id="out of sight"
        ),
        pytest.param(
            SPLIT,
            "4:cpu,cpuacct:/a\n5:cpuset:/a/b\n0::/\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "1000"},
            250,
            id="version 1",
        ),
        pytest.param(
            SPLIT,
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            0,
            id="version 1, no quota",
        ),
        pytest.param(
            SPLIT.replace(" / ", " /docker/1f ", 1),
            "4:cpu,cpuacct:/docker/1f\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3,
            id="a container without a namespace of groups",
        ),
        pytest.param(
            SPLIT + UNIFIED.replace("cgroup rw", r"uni\040fied rw"),
            "4:cpu,cpuacct:/\n0::/a\n",
            {"uni fied/a/cpu.max": "100 50"},
            0,
            id="another folder's name",
        ),
        pytest.param(
            UNIFIED.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/uni\040fied"),
            "0::/a\n",
            {"uni fied/a/cpu.max": "100 50"},
            2,
            id="a mount with a blank",
        ),
    ],
)
def test_what_files_say(
    find_quota: Path,
    tmp_path: Path,
    mounts: str,
    groups: str,
    files: dict[str, str],
    expected: int,
) -> None:
    for name, text in {
        "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/root rw\n" + mounts,
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{name}": text + "\n" for name, text in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert run(find_quota, tmp_path) == f"{expected}\n"


def remove(group: Path) -> None:
    """The kernel may take a moment to see that its processes have ended."""
    for _ in range(100):
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.05)
    return group.rmdir()


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A control group with that quota."""
    name = f"bitheads-{os.getpid()}"
    for root, settings in (
        (Path("/sys/fs/cgroup"), {"cpu.max": "50000 100000"}),
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_quota_us": "50000"}),
    ):
        group = root / name
        try:
            if not (root / "cgroup.procs").exists():
                continue
            group.mkdir()
        except OSError as error:
            pytest.skip(f"no control group can be made here ({error})")
        try:
            for setting, value in settings.items():
                if not (group / setting).exists():
                    pytest.skip(f"control groups have no {setting} here")
                (group / setting).write_text(value)
            yield group
        finally:
            remove(group)
        return
    pytest.skip("no control groups of processor time here")


def have_as_many_threads(first: int, second: int) -> bool:
    """Half a core takes long to start the last of them."""
    for _ in range(600):
        counts = len(threads_of(first)), len(threads_of(second))
        if counts[0] == counts[1]:
            return True
        time.sleep(0.05)
    return False


def test_a_quota_is_obeyed(
    in_a_program: Path, find_quota: Path, host_bundle: Path, half_a_core: Path
) -> None:
    enter = ("sh", "-c", f'echo $$ >"{half_a_core}/cgroup.procs" && exec "$@"', "sh")
    assert run(*enter, find_quota, "/") == "1\n"
    command = (in_a_program, "busy", host_bundle)
    with busy(*command, "1") as one, busy(*enter, *command, "0") as limited:
        assert have_as_many_threads(limited, one)
    with busy(*enter, *command, "2") as asked, busy(*command, "2") as two:
        assert have_as_many_threads(asked, two)
