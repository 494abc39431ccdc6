"""Processor quotas of containers bound the threads, as affinity does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from bitheads.engine.process import cores
from bitheads.engine.process.cores import count_cores, count_physical_cores, quota_cores

Files = dict[str, str]


@pytest.fixture
def groups(tmp_path: Path) -> Callable[[str, Files], int | None]:
    """(what /proc/self/cgroup says, files of /sys/fs/cgroup) -> cores of the quota."""

    def quota(own: str, files: Files) -> int | None:
        (tmp_path / "cgroup").write_text(own)
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return quota_cores(tmp_path / "cgroup", tmp_path / "sys")

    return quota


V2, V1 = "0::{}\n", "4:memory:/m\n1:cpu,cpuacct:{}\n0::/\n"


def v1(quota_us: int, period_us: int, folder: str = "") -> Files:
    return {
        f"cpu,cpuacct{folder}/cpu.cfs_quota_us": f"{quota_us}\n",
        f"cpu,cpuacct{folder}/cpu.cfs_period_us": f"{period_us}\n",
    }


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2.format("/"), {}, None),
        (V2.format("/"), {"cpu.max": "max 100000\n"}, None),
        (V2.format("/"), {"cpu.max": "50000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "100000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "150000 100000\n"}, 2),
        (V2.format("/"), {"cpu.max": "1000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "300000 100000\n"}, 3),
        (V2.format("/a/b"), {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        (V2.format("/a/b"), {"a/b/cpu.max": "100000 100000", "a/cpu.max": "200000 100000"}, 1),
        (V2.format("/a/b"), {"a/b/cpu.max": "400000 100000", "cpu.max": "200000 50000"}, 4),
        (V2.format("/other/c"), {"cpu.max": "200000 100000\n", "a/cpu.max": "1 100000"}, 2),
        (V2.format("/../../c"), {"cpu.max": "200000 100000\n"}, 2),
        (V2.format("/"), {"cpu.max": "nonsense"}, None),
        (V2.format("/"), {"cpu.max": "100000 0"}, None),
        (V1.format("/"), v1(-1, 100000), None),
        (V1.format("/"), v1(50000, 100000), 1),
        (V1.format("/"), v1(250000, 100000), 3),
        (V1.format("/d"), {**v1(-1, 100000, "/d"), **v1(200000, 100000)}, 2),
        (V1.format("/docker/1234"), v1(200000, 100000), 2),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        (
            "2:cpuacct,cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("2:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "50000"}, None),
        ("", {"cpu.max": "50000 100000"}, None),
    ],
)
def test_the_rule(
    groups: Callable[[str, Files], int | None], own: str, files: Files, expected: int | None
) -> None:
    assert groups(own, files) == expected


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert quota_cores(tmp_path / "none", tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("quota", "affinity", "expected", "told"),
    [(None, 4, 4, None), (8, 4, 4, None), (4, 4, 4, None), (3, 4, 3, 3), (1, 4, 1, 1)],
)
def test_the_smaller_of_both(
    quota: int | None,
    affinity: int,
    expected: int,
    told: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Libraries that count processors by themselves are told only what they cannot know."""
    monkeypatch.setattr(cores, "quota_cores", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    assert (count_cores(), cores.choose_threads()) == (expected, told)


def test_processors_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 and 4, 1 and 5, ... share one; nothing is known of 7."""
    monkeypatch.setattr(cores, "quota_cores", lambda: None)
    for number in range(7):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        name = "thread_siblings_list" if number in (2, 6) else "core_cpus_list"
        (folder / name).write_text(f"{number % 4},{number % 4 + 4}\n")
    for allowed, expected in (({0, 4}, 1), ({0, 1, 4, 5}, 2), ({2, 6}, 1), ({3, 7}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: allowed)
        assert count_physical_cores(tmp_path) == expected
    monkeypatch.setattr(cores, "quota_cores", lambda: 1)
    assert count_physical_cores(tmp_path) == 1


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """The file of a control group of half a core, to which a process writes its id to be in it."""
    if count_cores() < 2:
        pytest.skip("one processor core is all that this process has")
    own = dict(line.split(":", 2)[1:] for line in cores.GROUPS.read_text().splitlines())
    name = next((names for names in own if "cpu" in names.split(",")), "")
    root = cores.GROUP_FILES / name
    folder = root.joinpath(*own.get(name, "/").strip("/").split("/")) / f"bitheads-{uuid4().hex}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            if name:
                (folder / "cpu.cfs_period_us").write_text("100000")
                (folder / "cpu.cfs_quota_us").write_text("50000")
            else:
                (folder / "cpu.max").write_text("50000 100000")
        except OSError as error:
            pytest.skip(f"a control group here cannot have a quota: {error}")
        yield folder / "cgroup.procs"
    finally:
        with suppress(OSError):
            folder.rmdir()


PROGRAM = """
import json, os, sys
with open(sys.argv[1], "w") as group:
    group.write(str(os.getpid()))
from bitheads import Engine
from bitheads.engine.process.cores import count_cores
from bitheads.engine.heads.cpu import HeadThreads
found = {"cores": count_cores(), "heads": HeadThreads()._threads}
for backend in ("openvino", "onnxruntime"):
    with Engine.load(sys.argv[2], backend, precision="fp32") as engine:
        session = engine.encoder._session
        if backend == "openvino":
            found[backend] = session._compiled.get_property("INFERENCE_NUM_THREADS")
            found["lanes"] = engine.encoder._open_lanes is not None
        else:
            found[backend] = session._session.get_session_options().intra_op_num_threads
print(json.dumps(found))
"""


def test_a_process_with_half_a_core(half_a_core: Path, tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(half_a_core), str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "cores": 1,
        "heads": 1,
        "openvino": 1,
        "lanes": False,
        "onnxruntime": 1,
    }
