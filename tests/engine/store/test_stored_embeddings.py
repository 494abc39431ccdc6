"""Stores that keep the embeddings of their texts, in a column of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from store_cases import make_features, make_ids, make_spec
from tiny_encoders import corpus

from bitheads import Engine, InputError, StoreError
from bitheads.engine.commands import encode
from bitheads.engine.features.embedding import PRECISIONS, RANGES, Embedder, EmbeddingSpec
from bitheads.engine.jobs.ray_jobs import EncodeJob, EncodeWorker, plan_encoding
from bitheads.engine.store import EmbeddingColumn, FeatureStore, StoreWriter, compact, verify
from bitheads.engine.store.embedding_column import NOTE
from bitheads.engine.store.sealed import SealedWriter
from bitheads.engine.texts.text_files import TextFile

TEXTS = [*corpus()[:30], corpus()[3], "", "😀"]
DIM = 6


@pytest.fixture(scope="module")
def bundle(build_bundle: Callable[..., Path]) -> Path:
    return build_bundle("bert", embedding="mean")


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return Engine.load(bundle, backend="onnxruntime")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [json.dumps({"id": f"t{i}", "text": text}) for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def run(bundle: Path, texts: Path, tmp_path: Path) -> Callable[..., int]:
    def call(*options: object) -> int:
        fixed = ["--bundle", bundle, "--backend", "onnxruntime", "--store", tmp_path / "store"]
        return encode.main([str(o) for o in (*fixed, "--input", texts, *options)])

    return call


def read(folder: Path) -> dict[str, NDArray[Any]]:
    """The vectors by id, by pyarrow alone."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])
    column = table["embedding"].combine_chunks()
    rows = column.flatten().to_numpy().reshape(len(table), -1)
    return dict(zip(table["id"].to_pylist(), rows, strict=True))


def test_they_are_those_of_the_engine(
    run: Callable[..., int], engine: Engine, tmp_path: Path
) -> None:
    assert run("--embeddings", "float32", "--chunk-texts", 7) == 0
    features = engine.encode(TEXTS, embeddings=True)
    assert features.embeddings is not None
    found = read(tmp_path / "store")
    for i, vector in enumerate(features.embeddings):
        np.testing.assert_allclose(found[f"t{i}"], vector, rtol=1e-5, atol=1e-6)
    codes = [rows.features.codes.tobytes() for rows in FeatureStore(tmp_path / "store").scan()]
    assert b"".join(codes) == features.codes.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dim", [None, 12])
def test_every_precision(engine: Engine, tmp_path: Path, precision: str, dim: int | None) -> None:
    features = engine.encode(TEXTS, embeddings=True)
    assert features.embeddings is not None
    column = EmbeddingColumn(engine.embedder, precision, dim)
    with StoreWriter(FeatureStore(tmp_path / "store", engine.spec), embedding=column) as writer:
        writer.append(make_ids(len(TEXTS)), features)
    expected = engine.embedder.finish(features.embeddings, dim, False, precision)
    found = read(tmp_path / "store")
    for name, vector in zip(make_ids(len(TEXTS)), expected, strict=True):
        assert found[name].dtype == vector.dtype
        np.testing.assert_array_equal(found[name], vector)
    (store,) = [FeatureStore(tmp_path / "store")]
    (rows,) = store.scan(columns=["embedding"])
    assert rows.columns["embedding"].type == column.field.type
    assert "embedding" in store.info().columns


def test_normalized(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--embeddings", "float32", "--embedding-dim", 10, "--normalize") == 0
    for vector in read(tmp_path / "store").values():
        assert len(vector) == 10
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_other_programs_read_them(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--embeddings", "float32") == 0
    files = f"{tmp_path}/store/*.parquet"
    nearest = duckdb.sql(
        f"""SELECT b.id FROM '{files}' a, '{files}' b WHERE a.id = 't3'
        ORDER BY list_cosine_similarity(a.embedding, b.embedding) DESC LIMIT 2"""
    ).fetchall()
    assert {name for (name,) in nearest} == {"t3", "t30"}  # the same text


def test_streams_give_them(engine: Engine) -> None:
    whole = engine.encode(TEXTS, embeddings=True).embeddings
    assert whole is not None
    parts = [part.embeddings for part in engine.encode_stream(TEXTS, 8, embeddings=True)]
    assert all(part is not None for part in parts)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="long_texts='split'"):
        engine.encode_stream(TEXTS, long_texts="split", embeddings=True)


REFUSED = "Encode as they were"


def test_no_others_get_in(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--embeddings", "int8") == 0
    before = read(tmp_path / "store")
    for options in ([], ["--embeddings", "binary"], ["--embeddings", "int8", "--embedding-dim", 9]):
        assert run("--existing", "replace", *options) == 1
        assert REFUSED in capsys.readouterr().err
    assert run("--embeddings", "int8", "--existing", "replace") == 0
    after = read(tmp_path / "store")
    assert before.keys() == after.keys()
    for name, vector in before.items():
        np.testing.assert_array_equal(after[name], vector)


def test_none_get_into_a_store_without(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert run("--embeddings", "float32") == 1
    error = capsys.readouterr().err
    assert "expected no embeddings" in error
    assert REFUSED in error


def test_what_cannot_be_asked(
    run: Callable[..., int], tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--normalize") == 1
    assert "are of --embeddings" in capsys.readouterr().err
    assert run("--embeddings", "float32", "--embedding-dim", 1000) == 1
    assert "dim: got 1000" in capsys.readouterr().err
    assert run("--bundle", tiny_bundle, "--embeddings", "float32") == 1
    assert "this bundle gives none" in capsys.readouterr().err
    assert run("--embeddings", "float32", "--long-texts", "split") == 1
    assert "expected 'cut'" in capsys.readouterr().err


def test_workers_store_the_same(bundle: Path, engine: Engine, texts: Path, tmp_path: Path) -> None:
    job = EncodeJob(
        bundle,
        str(tmp_path / "store"),
        "onnxruntime",
        "auto",
        "skip",
        10,
        7,
        None,
        "cut",
        embeddings="ubinary",
    )
    file = TextFile(texts)
    column = EmbeddingColumn(engine.embedder, "ubinary")
    with StoreWriter(FeatureStore(job.store, engine.spec), embedding=column) as writer:
        blocks, _ = plan_encoding(file, writer, "skip", 10)
        worker = EncodeWorker(job, 1, file, writer.store_id)
        assert sum(worker.do(block) for block in blocks) == len(TEXTS)
    vectors = engine.encode(TEXTS, embeddings=True).embeddings
    assert vectors is not None
    expected = engine.embedder.finish(vectors, precision="ubinary")
    found = read(tmp_path / "store")
    same = [np.array_equal(found[f"t{i}"], vector) for i, vector in enumerate(expected)]
    assert np.mean(same) > 0.9  # a number next to 0 may have another sign in another batch
    verify(FeatureStore(job.store).folder.path)


def seeded(steps: float = 0.0) -> Embedder:
    ranges = np.array([[-1.0] * DIM, [1.0 + steps] * DIM], np.float32)
    return Embedder(EmbeddingSpec(("mean",), (), DIM), {RANGES: ranges})


def fill(path: Path, embedder: Embedder, first: int = 0, **options: Any) -> FeatureStore:
    store = FeatureStore(path, make_spec())
    rng = np.random.default_rng(first)
    with StoreWriter(store, embedding=EmbeddingColumn(embedder, **options)) as writer:
        for start in (first, first + 8):
            vectors = rng.normal(size=(8, DIM)).astype(np.float32)
            features = replace(make_features(store.spec, 8, seed=start), embeddings=vectors)
            writer.append(make_ids(8, start), features)
            writer.flush()
    return store


def test_merging_keeps_them_and_what_they_are(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", seeded())
    before = read(tmp_path / "store")
    assert compact(store) == 1
    after = read(tmp_path / "store")
    for name, vector in before.items():
        np.testing.assert_array_equal(after[name], vector)
    fill(tmp_path / "store", seeded(), first=16)  # goes on
    assert len(FeatureStore(tmp_path / "store")) == 32
    with pytest.raises(InputError, match=REFUSED):
        fill(tmp_path / "store", seeded(), first=32, precision="uint8")


def test_embedders_that_make_others_are_told_apart(tmp_path: Path) -> None:
    fill(tmp_path / "int8", seeded(), precision="int8")
    with pytest.raises(InputError, match=REFUSED):
        fill(tmp_path / "int8", seeded(1.0), first=16, precision="int8")
    # Whose ranges are others, and nobody asks for them.
    fill(tmp_path / "float32", seeded())
    fill(tmp_path / "float32", seeded(1.0), first=16)
    weights = seeded().weights
    other = Embedder(EmbeddingSpec(("cls",), (), DIM), weights)
    with pytest.raises(InputError, match=REFUSED):
        fill(tmp_path / "float32", other, first=32)
    prompts = Embedder(EmbeddingSpec(("mean",), (), DIM, {"query": "query: "}, "query"), weights)
    fill(tmp_path / "float32", prompts, first=32)


def test_parts_of_two_stores_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path / "one", seeded())
    other = fill(tmp_path / "other", seeded(), first=16, normalize=True)
    part = other.parts[1].name
    (tmp_path / "other" / part).rename(tmp_path / "one" / f"part-00000009{part[13:]}")
    with pytest.raises(StoreError, match="of length 1"):
        FeatureStore(tmp_path / "one")


def test_a_column_of_the_users_own_of_that_name_stays_theirs(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", make_spec())
    with StoreWriter(store) as writer:
        writer.append(make_ids(8), make_features(store.spec, 8), {"embedding": [1.5] * 8})
    with pytest.raises(InputError, match="expected no embeddings"):
        fill(tmp_path / "store", seeded(), first=8)
    with StoreWriter(FeatureStore(tmp_path / "store")) as writer:
        writer.append(make_ids(8, 8), make_features(store.spec, 8), {"embedding": [2.5] * 8})


def test_features_without_are_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", make_spec())
    with (
        StoreWriter(store, embedding=EmbeddingColumn(seeded())) as writer,
        pytest.raises(InputError, match="without embeddings"),
    ):
        writer.append(make_ids(8), make_features(store.spec, 8))


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"dim": NaN}', b"\xff"])
def test_a_note_that_nobody_writes(tmp_path: Path, note: bytes) -> None:
    store = fill(tmp_path / "store", seeded())
    part = store.parts[0]
    (table,) = part.tables()
    at = table.schema.get_field_index("embedding")
    field = table.schema.field(at).with_metadata({NOTE: note})
    with (tmp_path / "store" / part.name).open("wb") as file:
        sealed = SealedWriter(pa.PythonFile(file), table.schema.set(at, field))
        sealed.write(table.cast(table.schema.set(at, field)))
        sealed.close(dict(part.facts))
    with pytest.raises(StoreError, match="what is noted of its embeddings"):
        FeatureStore(tmp_path / "store")
