"""Encodes and backfills on a Ray cluster of this machine, killing a worker in the middle of each.

    kill_ray.py BUNDLE FOLDER

The same is done without Ray, and both must be the same, row for row. So must what a driver that is
killed began, and the next one ends, with blocks of another size. The last line on standard output
is how many workers were killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path

import pyarrow.dataset as ds
import ray
from store_cases import contents

import bitheads.engine.commands.backfill
import bitheads.engine.commands.encode
from bitheads.engine.store import FeatureStore, verify

TEXTS = 700


def workers() -> list[int]:
    """Process ids of the actors of this driver's cluster."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])

    def is_ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return [p for p, name in names.items() if name.startswith(b"ray::") and is_ours(p)]


def kill_one_when(folder: Path, killed: list[int]) -> None:
    """Once a first file is there, ends a worker that is still at work."""
    while not any(folder.rglob("part-*.parquet")):
        time.sleep(0.002)
    for process in workers():
        if b"Worker" in Path(f"/proc/{process}/cmdline").read_bytes():
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return


def run_killed(main: object, words: list[str], folder: Path) -> int:
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_when, args=(folder, killed), daemon=True)
    killer.start()
    assert main(words) == 0  # type: ignore[operator]
    killer.join()
    return len(killed)


def kill_a_driver(words: list[str], store: Path) -> None:
    """Of the same cluster, once it has stored something; its workers may outlive it."""
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = subprocess.Popen(
        [sys.executable, "-m", "bitheads", "encode", *words, "--store", str(store)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(store.glob("part-*.parquet")):
        assert driver.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL


def rows(folder: Path) -> dict[str, list[dict[str, object]]]:
    return {
        task.name: sorted(ds.dataset(task).to_table().to_pylist(), key=lambda row: row["id"])
        for task in folder.glob("task=*")
    }


def main(bundle: Path, folder: Path) -> None:
    lines = (
        (files("bitheads.export") / "data" / "sentences.txt")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    texts = folder / "texts.txt"
    texts.write_text("\n".join((lines * 5)[:TEXTS]), encoding="utf-8")
    many = folder / "texts"
    many.mkdir()
    for number, (start, stop) in enumerate([(0, 250), (250, 251), (251, TEXTS)]):
        texts_of_one = enumerate((lines * 5)[start:stop], start)
        lines_of_one = [json.dumps({"text": text, "row": row}) for row, text in texts_of_one]
        (many / f"{number}.jsonl").write_text("\n".join(lines_of_one), encoding="utf-8")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    killed = 0

    encode = ["--bundle", str(bundle), "--backend", "onnxruntime"]
    encode += ["--threads", "1", "--chunk-texts", "16"]
    on_ray = ["--input", str(many), "--runner", "ray", "--workers", "2", "--block-texts", "32"]
    on_ray += ["--columns", "row"]
    here = ["--input", str(texts), "--store", str(folder / "one")]
    assert bitheads.engine.commands.encode.main([*encode, *here]) == 0
    killed += run_killed(
        bitheads.engine.commands.encode.main,
        [*encode, *on_ray, "--store", str(folder / "many")],
        folder / "many",
    )
    expected = contents(FeatureStore(folder / "one"))
    assert contents(FeatureStore(folder / "many")) == expected
    table = ds.dataset(folder / "many").to_table(columns=["id", "row"])
    assert table["id"].to_pylist() == [str(row) for row in table["row"].to_pylist()]
    assert verify(folder / "many") == []
    assert (
        bitheads.engine.commands.encode.main([*encode, *on_ray, "--store", str(folder / "many")])
        == 0
    )
    assert contents(FeatureStore(folder / "many")) == expected

    kill_a_driver([*encode, *on_ray, "--block-texts", "16"], folder / "twice")
    again = [*encode, *on_ray, "--block-texts", "48", "--store", str(folder / "twice")]
    assert bitheads.engine.commands.encode.main(again) == 0
    assert contents(FeatureStore(folder / "twice")) == expected

    # What a worker cannot do is an error of ours here, too, not a traceback of Ray's.
    words = [*encode, *on_ray, "--backend", "none", "--store", str(folder / "none")]
    assert bitheads.engine.commands.encode.main(words) == 1

    backfill = ["--bundle", str(bundle), "--store", str(folder / "many"), "--threads", "1"]
    assert (
        bitheads.engine.commands.backfill.main([*backfill, "--output", str(folder / "answers-one")])
        == 0
    )
    output = folder / "answers-many"
    words = [*backfill, "--output", str(output), "--runner", "ray", "--workers", "2"]
    killed += run_killed(bitheads.engine.commands.backfill.main, words, output)
    assert rows(output) == rows(folder / "answers-one")
    assert len(rows(output)) == 2
    assert not list(folder.rglob(".*.partial"))
    ray.shutdown()
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
