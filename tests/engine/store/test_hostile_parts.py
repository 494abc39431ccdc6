"""Parts that somebody else sealed: whatever they say, a StoreError, and no wrong row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from store_cases import contents, expected, fill, make_features, make_ids, make_spec

from bitheads import StoreError
from bitheads.engine.store import FeatureStore, schema, sealed, verify

SPEC = make_spec()
Facts = dict[str, Any]


def write_part(
    path: Path,
    change: Callable[[Facts], object] = lambda facts: None,
    change_table: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> None:
    """A sealed file; its table and what its footer says are changed before they are sealed."""
    features = make_features(SPEC, 20)
    ids = pa.array(make_ids(20))
    table = change_table(schema.make_table(ids, features, {}, schema.make_schema(SPEC)))
    facts: Facts = {"tokens": int(features.offsets[-1]), "replaces": [], "store": "ab"}
    dumps = json.dumps

    def dump(content: Facts, **options: Any) -> str:
        if "checksums" in content:
            change(content)
        return dumps(content, **options)

    with path.open("wb") as file, pytest.MonkeyPatch.context() as patch:
        writer = sealed.SealedWriter(file, table.schema)
        writer.write(table)
        patch.setattr(sealed.json, "dumps", dump)
        writer.close(facts)


def test_one_that_is_not_changed_is_read(tmp_path: Path) -> None:
    write_part(tmp_path / "part-00000000-a.parquet")
    assert contents(FeatureStore(tmp_path)) == expected(1)
    assert verify(tmp_path) == []


def setting(**values: Any) -> Callable[[Facts], object]:
    return lambda facts: facts.update(values)


def without(name: str) -> Callable[[Facts], object]:
    return lambda facts: facts.pop(name)


FACTS: dict[str, Callable[[Facts], object]] = {
    "blocks of nothing": setting(block_bytes=0),
    "blocks below nothing": setting(block_bytes=-1),
    "blocks of a word": setting(block_bytes="512"),
    "blocks of a part": setting(block_bytes=0.5),
    "blocks that are true": setting(block_bytes=True),
    "endless blocks": setting(block_bytes=1 << 62),
    "no blocks": without("block_bytes"),
    "no checksums": without("checksums"),
    "checksums of nothing": setting(checksums=[]),
    "a checksum": setting(checksums=5),
    "too many checksums": lambda facts: facts["checksums"].append(1),
    "checksums that are words": setting(checksums=["x"]),
    "checksums by name": setting(checksums={"0": 1}),
    "no tokens": without("tokens"),
    "tokens that are a word": setting(tokens="5"),
    "tokens below nothing": setting(tokens=-1),
    "a store that is a number": setting(store=5),
    "replacing a word": setting(replaces="part-00000001-a.parquet"),
    "replacing numbers": setting(replaces=[1]),
    "replacing itself": setting(replaces=["part-00000000-a.parquet"]),
}


@pytest.mark.parametrize("name", FACTS)
def test_footers_that_no_writer_writes(tmp_path: Path, name: str) -> None:
    write_part(tmp_path / "part-00000000-a.parquet", FACTS[name])
    with pytest.raises(StoreError, match="part-00000000-a"):
        contents(FeatureStore(tmp_path))
    (wrong,) = verify(tmp_path)
    assert "part-00000000-a" in wrong


def with_column(name: str, make: Callable[[pa.Table], Any]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, make(table)).replace_schema_metadata(
            table.schema.metadata
        )

    return change


def renamed(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.rename_columns(
        ["x" if column == name else column for column in table.column_names]
    )


def with_metadata(**values: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        content = {**json.loads(table.schema.metadata[schema.METADATA]), **values}
        return table.replace_schema_metadata({schema.METADATA: json.dumps(content)})

    return change


def first_code(change: Callable[[bytes], bytes]) -> Callable[[pa.Table], pa.Table]:
    def make(table: pa.Table) -> Any:
        first, *others = table["codes"].to_pylist()
        return pa.array([change(first), *others], pa.large_binary())

    return with_column("codes", make)


TABLES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "codes as texts": with_column("codes", lambda table: pa.array(["x" * 8] * 20)),
    "small codes": with_column("codes", lambda table: table["codes"].cast(pa.binary())),
    "codes that are null": with_column(
        "codes", lambda table: pa.array([None, *table["codes"].to_pylist()[1:]], pa.large_binary())
    ),
    "a byte less": first_code(lambda code: code[:-1]),
    "a token less": first_code(lambda code: code[:-8]),
    "a token more": first_code(lambda code: code + bytes(8)),
    "ids that are null": with_column("id", lambda table: pa.array([None, *make_ids(19)])),
    "ids that are numbers": with_column("id", lambda table: pa.array(range(20))),
    "other counts": with_column("num_tokens", lambda table: pa.array([7] * 20, pa.int32())),
    "counts of 64 bits": with_column("num_tokens", lambda table: table["num_tokens"].cast("int64")),
    "no ids": renamed("id"),
    "no codes": renamed("codes"),
    "no counts": renamed("num_tokens"),
    "no forms": renamed("is_pair"),
    "forms that are words": with_column("is_pair", lambda table: pa.array(["no"] * 20)),
    "codes twice": lambda table: table.append_column("codes", table["codes"]),
    "no spec": with_metadata(spec=None),
    "a spec that is a list": with_metadata(spec=[]),
    "another dim": with_metadata(spec={**SPEC.to_json(), "dim": 72}),
    "a dim of nothing": with_metadata(spec={**SPEC.to_json(), "dim": 0}),
    "a version that is true": with_metadata(format_version=True),
    "a version of the future": with_metadata(format_version=6),
    "no metadata": lambda table: table.replace_schema_metadata({}),
}


@pytest.mark.parametrize("name", TABLES)
def test_columns_that_no_writer_writes(tmp_path: Path, name: str) -> None:
    write_part(tmp_path / "part-00000000-a.parquet", change_table=TABLES[name])
    with pytest.raises(StoreError, match="part-00000000-a"):
        contents(FeatureStore(tmp_path))
    (wrong,) = verify(tmp_path)
    assert "part-00000000-a" in wrong


@pytest.mark.parametrize("replaced", [1, 2])
def test_a_part_hides_no_rows_that_it_has_not(tmp_path: Path, replaced: int) -> None:
    """It has 20 rows, the others 20 each; one of 20 could be a copy of them."""
    store = fill(tmp_path, parts=2)
    names = [part.name for part in store.parts]
    assert len(names) == 2
    write_part(tmp_path / "part-00000009-a.parquet", setting(replaces=names[:replaced]))
    if replaced == 2:
        with pytest.raises(StoreError, match="to replace parts of 40 rows, but has 20"):
            FeatureStore(tmp_path)
    else:
        assert len(FeatureStore(tmp_path)) == 40
        assert np.array_equal(sorted(contents(FeatureStore(tmp_path))), sorted(make_ids(40)))
