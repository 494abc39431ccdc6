"""Runs a command on a store, kills it with -9 at random moments, then lets it end.

    kill_store.py encode|encode_files|backfill|compact|delete BUNDLE FOLDER SEED KILLS

What there is at the end is compared, row for row, with that of a run that was left alone; after
each kill, that no row is there twice or with other codes. Each run is a process forked from this
one, which has imported all and started no thread. The last line on standard output is the number of
killed runs, and "same".
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from store_cases import contents, make_features, make_ids

import bitheads.engine.commands.backfill
import bitheads.engine.commands.encode
import bitheads.engine.commands.store
import bitheads.engine.sessions.onnxruntime
from bitheads import Engine
from bitheads.engine.store import FeatureStore, StoreWriter, compact

TEXTS = 1200
PARTS, PART_TEXTS = 30, 40


class Case:
    """A command, where it works, and what there is when it has ended."""

    def __init__(self, command: str, bundle: Path, folder: Path) -> None:
        self.command, self.bundle, self.folder = command, bundle, folder
        self.store, self.answers = folder / "store", folder / "answers"
        self.before = folder / "before"

    def prepare(self) -> None:
        """What there is before the first run."""
        if self.command.startswith("encode"):
            sentences = files("bitheads.export") / "data" / "sentences.txt"
            lines = (sentences.read_text(encoding="utf-8").splitlines() * 9)[:TEXTS]
            (self.folder / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
            (self.folder / "texts").mkdir(exist_ok=True)
            bounds = [0, 1, 30, 30, 31, 64, 300, 301, 302, 900, TEXTS]
            rows = [json.dumps({"text": line, "row": row}) for row, line in enumerate(lines)]
            for number, (start, stop) in enumerate(pairwise(bounds)):
                content = "\n".join(rows[start:stop])
                (self.folder / "texts" / f"{number:02}.jsonl").write_text(content, encoding="utf-8")
            return
        spec = bitheads.engine.bundle.read_manifest(self.bundle).spec
        with StoreWriter(FeatureStore(self.store, spec), row_group_bytes=1000) as writer:
            for part in range(PARTS):
                ids = make_ids(PART_TEXTS, part * PART_TEXTS)
                writer.append(ids, make_features(spec, PART_TEXTS, seed=part))
                writer.flush()
        with StoreWriter(FeatureStore(self.store), "replace") as writer:
            writer.append(make_ids(9 * PART_TEXTS)[7::PART_TEXTS], make_features(spec, 9, seed=99))
        if self.command == "delete":
            ids = make_ids(PARTS * PART_TEXTS)
            kept = [ids[n] for n in range(0, len(ids), 3) if not 400 <= n < 440]
            (self.folder / "ids.txt").write_text("\n".join(sorted({*ids} - {*kept})))
            in_child(self.backfill)
            for path in (self.store, self.answers):
                shutil.copytree(path, self.before / path.name)

    def backfill(self) -> int:
        common = ["--bundle", str(self.bundle), "--store", str(self.store)]
        more = ["--output", str(self.answers), "--threads", "2"]
        return bitheads.engine.commands.backfill.main([*common, *more])

    def run(self) -> int:
        common = ["--bundle", str(self.bundle), "--store", str(self.store)]
        if self.command.startswith("encode"):
            name = "texts.txt" if self.command == "encode" else "texts"
            more = ["--input", str(self.folder / name), "--backend", "onnxruntime"]
            more += ["--threads", "1", "--chunk-texts", "32", "--part-seconds", "0.02"]
            more += ["--columns", "row"] if self.command == "encode_files" else []
            return bitheads.engine.commands.encode.main([*common, *more])
        if self.command == "backfill":
            return self.backfill()
        if self.command == "delete":
            more = ["--ids", str(self.folder / "ids.txt"), "--answers", str(self.answers)]
            words = ["delete", "--store", str(self.store), *more]
            return bitheads.engine.commands.store.main(words)
        store = FeatureStore(self.store)
        compact(store, part_bytes=4 * store.parts[-1].nbytes)
        return 0

    def found(self) -> dict[str, Any]:
        """All rows; none of them may be there twice."""
        rows: dict[str, Any] = {}
        if self.command != "backfill":
            try:
                rows = {**contents(FeatureStore(self.store))}
            except bitheads.engine.StoreError:  # nothing was written yet
                return {}
        if self.command == "encode_files" and rows:
            table = ds.dataset(self.store, format="parquet").to_table(columns=["id", "row"])
            assert table["id"].to_pylist() == [str(row) for row in table["row"].to_pylist()]
        for folder in self.answers.glob("task=*"):
            for row in ds.dataset(folder, format="parquet").to_table().to_pylist():
                key = f"{folder.name} {row['id']}"
                assert key not in rows, f"{key} is there twice"
                rows[key] = (row["label"], row["probability"])
        return rows

    def forget(self) -> None:
        """Undoes all runs."""
        for path in (self.store, self.answers):
            shutil.rmtree(path, ignore_errors=True)
        if self.before.is_dir():
            shutil.copytree(self.before, self.folder, dirs_exist_ok=True)
        else:
            self.prepare()


def in_child(run: Callable[[], int], kill_after_s: float | None = None) -> bool:
    """Whether it was killed before it ended; it must end well otherwise."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(run())
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def kill_often(case: Case, seed: int, kills: int) -> int:
    """How many runs were killed."""
    chance = random.Random(seed)
    case.prepare()
    before, deletes = case.found(), case.command == "delete"
    started_s = time.monotonic()
    in_child(case.run)
    whole_s = time.monotonic() - started_s
    whole = case.found()
    assert whole, "a run wrote nothing"
    case.forget()
    killed = runs = 0
    while killed < kills:
        runs += 1
        assert runs < 20 * kills, "it ends before it can be killed"
        killed += in_child(case.run, chance.uniform(0, whole_s))
        found = case.found()
        if deletes:
            assert found.items() <= before.items(), "a row was altered"
            assert whole.items() <= found.items(), "a row was lost"
        else:
            assert found.items() <= whole.items(), "a row was altered"
        if case.command == "compact":
            assert found == whole, "a row was lost"
            if chance.random() < 0.5:
                case.forget()
        elif deletes:
            if chance.random() < 0.5:
                case.forget()
        elif len(found) == len(whole):  # it had ended
            case.forget()
    in_child(case.run)
    assert case.found() == whole, "a row is missing"
    return killed


def main(command: str, bundle: str, folder: str, seed: str, kills: str) -> None:
    case = Case(command, Path(bundle), Path(folder))
    Engine  # noqa: B018 (imported before the first fork)
    print(kill_often(case, int(seed), int(kills)), "same")


if __name__ == "__main__":
    main(*sys.argv[1:])
