"""What a writer takes, publishes, refuses and loses."""

from __future__ import annotations

import errno
import fcntl
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from store_cases import contents, expected, fill, make_features, make_ids, make_spec

from bitheads import InputError, StoreError
from bitheads.engine.process.interrupts import interrupts_held_back
from bitheads.engine.store import FeatureStore, StoreWriter, verify
from bitheads.engine.store.part_writer import PartWriter
from bitheads.engine.store.schema import make_schema, make_table
from bitheads.engine.store.writer import _with_new_rows


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "a", "b"], "got 'a' twice in one call"),
        (["a", "b"], "got 2 of which 0 are null, expected one for each of 3"),
        (["a", None, "b"], "1 are null"),
        ([1, 2, 3], "ids: got int64"),
        (None, "ids: "),
    ],
)
def test_ids_that_are_none(tmp_path: Path, ids: Any, message: str) -> None:
    spec = make_spec()
    with (
        StoreWriter(FeatureStore(tmp_path, spec)) as writer,
        pytest.raises(InputError, match=message),
    ):
        writer.append(ids, make_features(spec, 3))
    assert not list(tmp_path.glob("[!.]*"))


def test_ids_that_are_stored(tmp_path: Path) -> None:
    spec = make_spec()
    fill(tmp_path)
    again = make_features(spec, 30, seed=9)
    names = make_ids(30, 50)  # ten of them are stored
    with (
        StoreWriter(FeatureStore(tmp_path)) as writer,
        pytest.raises(InputError, match=r"'text-50' is in store .* \(10 of 30 are\)"),
    ):
        writer.append(names, again)
    assert contents(FeatureStore(tmp_path)) == expected()
    with StoreWriter(FeatureStore(tmp_path), "skip") as writer:
        assert writer.append(names, again) == 20
        assert writer.append(names, again) == 0
    new = {name: one.codes.tobytes() for name, one in zip(names, again, strict=True)}
    assert contents(FeatureStore(tmp_path)) == {**new, **expected()}
    with StoreWriter(FeatureStore(tmp_path), "replace") as writer:
        assert writer.append(names, again) == 30
    assert contents(FeatureStore(tmp_path)) == {**expected(), **new}
    assert verify(tmp_path) == []


def test_replacing_what_was_just_appended_and_twice(tmp_path: Path) -> None:
    spec, names = make_spec(), make_ids(5)
    last = make_features(spec, 5, seed=3)
    with StoreWriter(FeatureStore(tmp_path, spec), "replace") as writer:
        for seed in range(4):
            writer.append(names, make_features(spec, 5, seed))
    found = contents(FeatureStore(tmp_path))
    assert list(found.values()) == [one.codes.tobytes() for one in last]


def test_replacing_keeps_the_order_and_other_parts(tmp_path: Path) -> None:
    store = fill(tmp_path)
    before = {part.name: part.seal for part in store.parts}
    with StoreWriter(FeatureStore(tmp_path), "replace") as writer:
        writer.append(["text-25"], make_features(make_spec(), 1, seed=9))
    store = FeatureStore(tmp_path)
    assert list(contents(store)) == list(expected())
    changed = [part.name for part in store.parts if before[part.name] != part.seal]
    assert changed == [store.parts[1].name]


def test_a_full_part_is_published_and_an_old_one(tmp_path: Path) -> None:
    spec = make_spec()
    store = FeatureStore(tmp_path, spec)
    with StoreWriter(store, part_bytes=1000) as writer:
        for i in range(10):
            writer.append(make_ids(10, 10 * i), make_features(spec, 10, seed=i))
        assert 3 <= len(store.parts) <= 6
    with StoreWriter(store, part_seconds=0) as writer:
        writer.append(make_ids(1, 500), make_features(spec, 1))
        assert "text-500" in contents(FeatureStore(tmp_path))
    with StoreWriter(store, "replace", part_seconds=0) as writer:
        new = make_features(spec, 1, seed=5)
        writer.append(["text-500"], new)
        assert contents(FeatureStore(tmp_path))["text-500"] == new.codes.tobytes()


def test_replacing_copies_the_rows_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all new rows again for each row group that holds one of them."""
    store = fill(tmp_path, parts=1, row_group_bytes=200)
    new = make_table(
        pa.array(make_ids(500)), make_features(store.spec, 500), {}, make_schema(store.spec)
    )
    join, rows = pa.concat_tables, []

    def counted(tables: list[pa.Table]) -> pa.Table:
        rows.append(sum(map(len, tables)))
        return join(tables)

    monkeypatch.setattr(pa, "concat_tables", counted)
    replaced = list(_with_new_rows(store.parts[0].tables(), new, new["id"].chunk(0)))
    assert len(rows) == len(replaced) > 3
    assert sum(rows) == 2 * 20
    assert [codes for table in replaced for codes in table["codes"].to_pylist()] == (
        new["codes"].to_pylist()[:20]
    )


def test_an_error_keeps_what_was_appended(tmp_path: Path) -> None:
    spec = make_spec()

    def interrupted() -> None:
        with StoreWriter(FeatureStore(tmp_path, spec)) as writer:
            writer.append(make_ids(5), make_features(spec, 5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(FeatureStore(tmp_path)) == 5


def test_ctrl_c_while_closing_waits_for_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = PartWriter.publish

    def interrupted(part: PartWriter, *arguments: Any, **facts: Any) -> str:
        signal.raise_signal(signal.SIGINT)
        return publish(part, *arguments, **facts)

    monkeypatch.setattr(PartWriter, "publish", interrupted)
    writer = StoreWriter(FeatureStore(tmp_path, make_spec()))
    writer.append(make_ids(5), make_features(make_spec(), 5))
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    assert len(FeatureStore(tmp_path)) == 5
    StoreWriter(FeatureStore(tmp_path)).close()  # it let go of the lock


def test_interrupts_that_are_ignored_or_held_back_outside_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held_back():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    done = []

    def step() -> None:
        with interrupts_held_back():
            with interrupts_held_back():
                signal.raise_signal(signal.SIGINT)
            done.append("the rest of the outer step")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done


def test_memory_that_the_caller_uses_again(tmp_path: Path) -> None:
    spec = make_spec()
    first, second = make_features(spec, 5), make_features(spec, 5, seed=1)
    right = [one.codes.tobytes() for one in (*first, *second)]
    days = np.arange(5)
    with StoreWriter(FeatureStore(tmp_path, spec), "replace") as writer:
        writer.append(make_ids(5), first, {"day": days})
        writer.append(make_ids(5, 5), first, {"day": days})
        writer.flush()
        writer.append(make_ids(5, 5), second, {"day": days})
        writer.append(make_ids(5, 10), second, {"day": days})
        for array in (first.codes, second.codes, days):
            array.flags.writeable = True
            array[:] = 77
    found = contents(FeatureStore(tmp_path))
    assert list(found.values()) == right + right[5:]
    rows = FeatureStore(tmp_path).scan(["day"])
    assert [day for one in rows for day in one.columns["day"].to_pylist()] == [*range(5)] * 3


def test_a_writer_that_could_not_write_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would skip ids that are not on disk."""
    spec = make_spec()

    def fail(*arguments: Any, **facts: Any) -> str:
        raise StoreError("the disk is full")

    store = FeatureStore(tmp_path, spec)
    writer = StoreWriter(store, "skip")
    writer.append(make_ids(5), make_features(spec, 5))
    with monkeypatch.context() as broken:
        broken.setattr(PartWriter, "publish", fail)
        with pytest.raises(StoreError, match="is full"):
            writer.flush()
    for again in (writer.flush, lambda: writer.append(make_ids(5), make_features(spec, 5))):
        with pytest.raises(StoreError, match="open a new StoreWriter"):
            again()
    writer.close()
    assert not list(tmp_path.glob("*part-*"))
    with StoreWriter(store, "skip") as writer:
        assert writer.append(make_ids(5), make_features(spec, 5)) == 5
    assert len(FeatureStore(tmp_path)) == 5


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    store = fill(tmp_path)
    with StoreWriter(store), pytest.raises(StoreError, match="another process is writing"):
        StoreWriter(FeatureStore(tmp_path))
    StoreWriter(store).close()


def test_bad_options(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, make_spec())
    with pytest.raises(InputError, match="existing: got 'keep'"):
        StoreWriter(store, "keep")
    with pytest.raises(InputError, match="part_bytes 0"):
        StoreWriter(store, part_bytes=0)


def test_an_empty_append(tmp_path: Path) -> None:
    spec = make_spec()
    with StoreWriter(FeatureStore(tmp_path, spec)) as writer:
        assert writer.append([], make_features(spec, 0)) == 0
    assert not list(tmp_path.glob("*.parquet"))


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    store = fill(tmp_path)
    left = tmp_path / ".part-00000003-0.parquet.1-2.partial"
    left.write_bytes(b"half")
    others = tmp_path / ".download.partial"
    others.touch()
    assert contents(FeatureStore(tmp_path)) == expected()
    assert ds.dataset(tmp_path).count_rows() == 60
    StoreWriter(store).close()
    assert not left.exists()
    assert others.exists()


def test_a_filesystem_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match="cannot be locked"):
        StoreWriter(FeatureStore(tmp_path, make_spec()))
