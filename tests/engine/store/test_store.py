"""The feature store: what is appended is what is read, by us and by others."""

from __future__ import annotations

import errno
import fcntl
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from store_cases import contents, expected, fill, make_features, make_ids, make_spec

from engine import InputError, PackedFeatures, SpecMismatchError, StoreError
from engine.interrupts import interrupts_held_back
from engine.store import FeatureStore, StoreWriter, compact, verify
from engine.store.folder import Folder
from engine.store.part_writer import PartWriter
from engine.store.schema import make_schema, make_table
from engine.store.writer import _with_new_rows


@pytest.mark.parametrize("quantization", ["sign", "uint8", "float16"])
@pytest.mark.parametrize("dim", [1, 7, 64, 65])
def test_what_is_appended_is_read(tmp_path: Path, dim: int, quantization: str) -> None:
    spec = make_spec(dim, quantization)
    features = make_features(spec, 50)
    with StoreWriter(FeatureStore(tmp_path, spec), row_group_bytes=100) as writer:
        assert writer.append(make_ids(30), features[:30]) == 30
        assert writer.append(make_ids(20, 30), features[30:]) == 20
    store = FeatureStore(tmp_path)
    assert store.spec == spec
    groups = list(store.scan())
    assert len(groups) == store.info().row_groups > 1
    found = PackedFeatures.concat([rows.features for rows in groups])
    assert np.array_equal(found.codes, features.codes)
    assert np.array_equal(found.offsets, features.offsets)
    assert [name for rows in groups for name in rows.ids.to_pylist()] == make_ids(50)


def test_codes_are_the_memory_that_was_read(tmp_path: Path) -> None:
    fill(tmp_path, parts=1)
    (table,) = FeatureStore(tmp_path).parts[0].tables()
    from engine.store.schema import read_features

    features = read_features(table, make_spec())
    address = table["codes"].chunk(0).buffers()[2].address
    assert features.codes.ctypes.data == address


def test_pyarrow_reads_it(tmp_path: Path) -> None:
    fill(tmp_path)
    table = ds.dataset(tmp_path).to_table()
    assert dict(zip(table["id"].to_pylist(), table["codes"].to_pylist(), strict=True)) == expected()
    spec = json.loads(table.schema.metadata[b"bitheads"])
    assert spec["spec_id"] == make_spec().id
    lengths = [len(codes) for codes in table["codes"].to_pylist()]
    assert [8 * tokens for tokens in table["num_tokens"].to_pylist()] == lengths


def test_polars_reads_it(tmp_path: Path) -> None:
    import polars

    fill(tmp_path)
    for where in (tmp_path, tmp_path / "*.parquet"):
        frame = polars.scan_parquet(where).collect()
        assert dict(frame.select("id", "codes").iter_rows()) == expected()


def test_duckdb_reads_it(tmp_path: Path) -> None:
    import duckdb

    fill(tmp_path)
    query = f"SELECT id, codes, num_tokens FROM '{tmp_path}/*.parquet'"
    rows = duckdb.sql(query).fetchall()
    assert {name: bytes(codes) for name, codes, _ in rows} == expected()
    assert all(len(codes) == 8 * tokens for _, codes, tokens in rows)


def test_own_columns(tmp_path: Path) -> None:
    spec = make_spec()
    days = [3, None, 5]
    with StoreWriter(FeatureStore(tmp_path, spec)) as writer:
        columns = {"day": pa.array(days, pa.int16()), "tag": ["a", "b", "a"]}
        writer.append(make_ids(3), make_features(spec, 3), columns)
        writer.append(make_ids(1, 3), make_features(spec, 1), {"day": [6], "tag": ["c"]})
        with pytest.raises(InputError, match=r"got \['day'\], expected \['day', 'tag'\]"):
            writer.append(make_ids(1, 4), make_features(spec, 1), {"day": [6]})
        with pytest.raises(InputError, match="'day': cannot be stored as int16"):
            writer.append(make_ids(1, 4), make_features(spec, 1), {"day": ["x"], "tag": ["c"]})
        with pytest.raises(InputError, match="'tag': got 2 values, expected 1"):
            writer.append(make_ids(1, 4), make_features(spec, 1), {"day": [1], "tag": ["c", "d"]})
    store = FeatureStore(tmp_path)
    assert store.info().columns == {"day": "int16", "tag": "string"}
    (rows,) = store.scan(["day"])
    assert rows.columns.to_pydict() == {"day": [*days, 6]}
    with pytest.raises(InputError, match="'codes', which is the store's own"):
        StoreWriter(FeatureStore(tmp_path / "b", spec)).append(
            make_ids(1), make_features(spec, 1), {"codes": [1]}
        )


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


def test_specs_must_agree(tmp_path: Path) -> None:
    fill(tmp_path)
    other = make_spec(encoder="another")
    with pytest.raises(SpecMismatchError, match=r"expected.*another"):
        FeatureStore(tmp_path, other)
    with StoreWriter(FeatureStore(tmp_path)) as writer, pytest.raises(SpecMismatchError):
        writer.append(["a"], make_features(other, 1))
    fill(tmp_path / "other", parts=1, dim=128)
    (part,) = (tmp_path / "other").glob("*.parquet")
    part.rename(tmp_path / "part-00000009-x.parquet")
    with pytest.raises(SpecMismatchError):
        FeatureStore(tmp_path)
    assert any("expected" in wrong for wrong in verify(tmp_path))


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no parts of a feature store there"):
        FeatureStore(tmp_path / "absent")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(StoreError, match="has no seal"):
        FeatureStore(tmp_path)
    with pytest.raises(StoreError, match="cannot be reached"):
        FeatureStore("nowhere://bucket/x", make_spec())


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


def test_other_filesystems(tmp_path: Path) -> None:
    """fsspec's memory stands for an object store: no locks, no folders, no fsync."""
    spec = make_spec()
    for path, filesystem in (
        (f"memory://{tmp_path.name}/store", None),
        ("inner", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())),
    ):
        store = FeatureStore(path, spec, filesystem)
        with StoreWriter(store) as writer:
            for part in range(3):
                writer.append(make_ids(20, 20 * part), make_features(spec, 20, seed=part))
                writer.flush()
        assert contents(FeatureStore(path, filesystem=filesystem)) == expected()
        assert compact(store) == 2
        assert contents(FeatureStore(path, filesystem=filesystem)) == expected()
        assert verify(path, filesystem) == []


def test_compact(tmp_path: Path) -> None:
    store = fill(tmp_path, parts=7)
    size = store.parts[0].nbytes
    assert compact(store, part_bytes=3 * size + 500) == 4
    assert [part.rows for part in store.parts] == [60, 60, 20]
    assert contents(store) == expected(7)
    assert list(contents(store)) == list(expected(7))
    assert store.info().row_groups == 3
    assert compact(store) == 2
    assert contents(FeatureStore(tmp_path)) == expected(7)
    assert compact(store) == 0


def test_a_compact_that_was_killed_doubles_nothing(tmp_path: Path) -> None:
    """The merged part is there and its sources are, too."""
    store = fill(tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    compact(store)
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    store = FeatureStore(tmp_path)
    assert len(store.parts) == 1
    assert contents(store) == expected()
    assert verify(tmp_path) == []
    StoreWriter(store).close()  # any writer mends it
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert contents(store) == expected()


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


def test_scan_reads_ahead_and_ends_its_thread(tmp_path: Path) -> None:
    store = fill(tmp_path)
    before = threading.active_count()
    rows = store.scan()
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("change", ["replace", "compact"])
def test_parts_that_change_while_others_read(tmp_path: Path, change: str) -> None:
    """No damage, and nothing to restore."""
    opened = fill(tmp_path)
    scan = opened.scan()
    next(scan)
    if change == "compact":
        compact(FeatureStore(tmp_path))
    else:
        with StoreWriter(FeatureStore(tmp_path), "replace") as writer:
            writer.append(["text-50"], make_features(make_spec(), 1, seed=9))
    for read in (lambda: list(opened.scan()), opened.parts[2].check):
        with pytest.raises(StoreError, match="merged or removed since the store was opened"):
            read()
    opened.refresh()
    assert len(contents(opened)) == 60


def test_opening_while_parts_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that were listed are gone by the time they are opened."""
    store = fill(tmp_path)
    stale = store.folder.names(".parquet")
    compact(store)
    names, listings = Folder.names, iter([stale])
    monkeypatch.setattr(
        Folder, "names", lambda folder, suffix: next(listings, None) or names(folder, suffix)
    )
    assert contents(FeatureStore(tmp_path)) == expected()


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    store = fill(tmp_path, parts=1)
    with pytest.raises(InputError, match=r"has no column 'nope', expected some of \[\]"):
        list(store.scan(["nope"]))


def test_a_filesystem_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match="cannot be locked"):
        StoreWriter(FeatureStore(tmp_path, make_spec()))


def test_without_pyarrow_the_engine_loads_and_the_store_says_what_to_type() -> None:
    program = """
import sys
sys.modules["pyarrow"] = None
import engine
try:
    import engine.store
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'bitheads[store]'" in done.stdout
