"""`bitheads store verify --answers` says what is missing, doubled, moved, damaged or of others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from random_heads import random_head, random_two_texts_head
from store_cases import fill, make_features, make_ids

from bitheads import StoreError
from bitheads.engine.commands.store import main
from bitheads.engine.heads.cpu import load_head
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill
from bitheads.engine.jobs.backfill_pairs import PairsBackfill
from bitheads.engine.jobs.pairs_file import PairsFile
from bitheads.engine.store import FeatureStore, StoreWriter, compact, delete, sealed, verify_answers


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return fill(tmp_path / "store")


def answer(store: FeatureStore, output: Path, task: str = "topic", **options: object) -> None:
    seed = int(options.pop("seed", 1))  # type: ignore[call-overload]
    head = TaskHead(load_head(random_head(store.spec, task, seed=seed, **options)), f"{seed}" * 64)
    job = Backfill(store, [head], output)
    job.run(job.prepare())


def write_again(path: Path, change: Callable[[pa.Table], pa.Table], **facts: object) -> None:
    """Another file under this name, sealed as bitheads seals it."""
    with pa.OSFile(str(path)) as file:
        said = dict(sealed.read_footer(file, str(path)).part)
    table = change(pq.read_table(path, partitioning=None))
    with path.open("wb") as file:
        writer = sealed.SealedWriter(file, table.schema)
        writer.write(table)
        writer.close({**said, **facts})


def test_sound_answers(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after all that may happen to a store."""
    output = tmp_path / "answers"
    answer(store, output)
    answer(store, output, "tone")
    assert verify_answers(store, output) == []
    assert main(["verify", str(store.folder), "--answers", str(output)]) == 0
    assert "answers of 2 heads are this store's" in capsys.readouterr().out
    delete(store, ["text-3", "text-25"], [output])
    assert verify_answers(store, output) == []
    with StoreWriter(store, "replace") as writer:
        writer.append(make_ids(1, 30), make_features(store.spec, 1, seed=9))
    compact(store)
    stale = verify_answers(store, output)
    assert len(stale) == 2 * 4
    assert sum("of a part that the store no longer has" in one for one in stale) == 6
    assert sum("answers of 58 texts are missing" in one for one in stale) == 2
    answer(store, output)
    answer(store, output, "tone")
    assert verify_answers(store, output) == []


def test_heads_answer_texts_of_their_form(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", parts=1)
    with StoreWriter(FeatureStore(tmp_path / "mixed", store.spec)) as writer:
        features = make_features(store.spec, 20)
        writer.append(make_ids(20), replace(features, pairs=np.arange(20) % 3 == 0))
    mixed = FeatureStore(tmp_path / "mixed")
    answer(mixed, tmp_path / "answers")
    answer(mixed, tmp_path / "answers", "alike", form="pair")
    assert len(pq.read_table(tmp_path / "answers" / "task=alike")) == 7
    assert verify_answers(mixed, tmp_path / "answers") == []


def test_every_fault_is_said(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "answers"
    answer(store, output)
    path = sorted((output / "task=topic").glob("part-*"))[1]
    sound = path.read_bytes()

    def twice(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table, table.slice(3, 1)])

    def of_others(table: pa.Table) -> pa.Table:
        ids = [*table["id"].to_pylist()[:-1], "never"]
        return table.set_column(0, table.schema.field("id"), pa.array(ids))

    def of_task(table: pa.Table) -> pa.Table:
        at = table.column_names.index("task")
        tone = pa.array(["tone"] * len(table)).dictionary_encode()
        return table.set_column(at, table.schema.field("task"), tone)

    def damage() -> None:
        path.write_bytes(bytes([*sound[:40], sound[40] ^ 1, *sound[41:]]))

    cases: list[tuple[Callable[[], object], str]] = [
        (path.unlink, "answers of 20 texts are missing, those of part"),
        (damage, "was changed after it was written"),
        (lambda: write_again(path, twice), "of 20 texts 0 have no answer, 1 several, and 0"),
        (
            lambda: write_again(path, lambda t: t.slice(2)),
            "of 20 texts 2 have no answer, 0 several",
        ),
        (lambda: write_again(path, of_others), "1 have no answer, 0 several, and 1 answers are of"),
        (lambda: write_again(path, of_task), "column 'task' has ['tone']"),
        (lambda: write_again(path, lambda t: t, head_sha256="2" * 64), "answers of 2 heads"),
        (lambda: write_again(path, lambda t: t, store="other"), "has the answers of store other"),
        (lambda: write_again(path, lambda t: t, source_seal="0"), "as it was before its texts"),
        (lambda: write_again(path, lambda t: t, answers_version=1), "another version of bitheads"),
        (lambda: shutil.copy(store.folder.path + f"/{path.name}", path), "holds no answers, and"),
    ]
    for change, expected in cases:
        path.unlink(missing_ok=True)
        path.write_bytes(sound)
        change()
        assert any(expected in one for one in verify_answers(store, output)), expected
        assert main(["verify", str(store.folder), "--answers", str(output)]) == 1
        said = capsys.readouterr().err
        assert expected in said
        assert "faults in the answers of" in said
    path.write_bytes(sound)
    assert verify_answers(store, output) == []
    (output / "task=topic").rename(output / "task=tone")
    assert len(verify_answers(store, output)) == 3
    with pytest.raises(StoreError, match="holds no answers to verify"):
        verify_answers(store, tmp_path)
    other = fill(tmp_path / "other")
    assert all("has the answers of store" in one for one in verify_answers(other, output)[:3])


def test_answers_of_pairs(store: FeatureStore, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("id_a\tid_b\ntext-1\ttext-2\ntext-30\ttext-1\n", encoding="utf-8")
    head = TaskHead(load_head(random_two_texts_head(store.spec, "alike")), "1" * 64)
    output = tmp_path / "answers"
    job = PairsBackfill(store, [head], PairsFile(pairs, None), output)
    job.run(job.prepare())
    assert verify_answers(store, output) == []
    (path,) = (output / "task=alike").glob("pairs-*")
    sound = path.read_bytes()

    def of_others(table: pa.Table) -> pa.Table:
        return table.set_column(1, table.schema.field("id_b"), pa.array(["text-2", "never"]))

    write_again(path, of_others)
    (wrong,) = verify_answers(store, output)
    assert "has the id 'never', which the store does not have" in wrong
    path.write_bytes(sound)
    path.rename(path.with_name("pairs-00000001.parquet"))
    assert "the first of them is block 0" in verify_answers(store, output)[-1]
    path.with_name("pairs-00000001.parquet").rename(path)
    with StoreWriter(store) as writer:
        writer.append(["more"], make_features(store.spec, 1))
    (wrong,) = verify_answers(store, output)
    assert "as it was before it changed" in wrong
