"""The feature store: what is appended is what is read, by us and by others."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from store_cases import contents, expected, fill, make_features, make_ids, make_spec

from bitheads import InputError, PackedFeatures, SpecMismatchError, StoreError
from bitheads.engine.process.install import how_to_install
from bitheads.engine.store import FeatureStore, StoreWriter, compact, verify
from bitheads.engine.store.folder import Folder


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
    from bitheads.engine.store.schema import read_features

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


def test_without_pyarrow_the_engine_loads_and_the_store_says_what_to_type() -> None:
    program = """
import sys
sys.modules["pyarrow"] = None
from bitheads import engine
try:
    import bitheads.engine.store
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert how_to_install("store") in done.stdout
