"""Stores that keep the words of their texts, and spans of stored texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from random_heads import random_head, random_span_head
from store_cases import make_features, make_features_of_words, make_ids, make_spec
from tiny_encoders import corpus

from bitheads import Engine, InputError, PackedFeatures, StoreError, Words
from bitheads.engine.commands import backfill, encode
from bitheads.engine.commands import store as store_command
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.jobs.backfill import Backfill, fitting_heads, read_heads
from bitheads.engine.jobs.ray_jobs import (
    BackfillJob,
    BackfillWorker,
    EncodeJob,
    EncodeWorker,
    Workers,
    encode_on_ray,
    plan_encoding,
)
from bitheads.engine.store import FeatureStore, StoreWriter, compact, schema, verify, words_column
from bitheads.engine.texts.text_files import TextFile
from bitheads.engine.types import Text

LONG = " ".join(corpus()[:30])
TEXTS: list[Text] = [
    "Otto Hahn went to Göttingen, and to Bonn.",
    "",
    ("a pair", "of texts"),
    "😀 Lise Meitner (1878-1968)",
    " \t ",
    LONG,
    ("another", "pair"),
    "Ein Text ohne Namen ... 東京",
    *corpus()[:40],
]


def store_words(path: Path, engine: Engine, texts: list[Text], **options: Any) -> FeatureStore:
    """A store of the texts and their words, of several parts of several row groups."""
    store = FeatureStore(path, engine.spec)
    with StoreWriter(store, row_group_bytes=900) as writer:
        for start in range(0, len(texts), 20):
            part = texts[start : start + 20]
            writer.append(make_ids(len(part), start), engine.encode(part, words=True, **options))
            writer.flush()
    return store


def read_words(store: FeatureStore) -> Words:
    """Of all rows, by their ids."""
    rows = list(store.scan())
    assert len(rows) > len(store.parts), "several row groups of a part"
    features = PackedFeatures.concat([one.features for one in rows])
    names = [int(name.split("-")[1]) for one in rows for name in one.ids.to_pylist()]
    words = features[np.argsort(names)].words
    assert words is not None
    return words


def check_same(found: Words | None, expected: Words | None) -> None:
    assert found is not None
    assert expected is not None
    for name in ("table", "offsets", "truncated_at", "is_single"):
        got, wanted = getattr(found, name), getattr(expected, name)
        assert got.dtype == wanted.dtype
        assert np.array_equal(got, wanted), name


@pytest.mark.parametrize("long_texts", ["cut", "split"])
def test_what_is_appended_is_read(tiny_engine: Engine, tmp_path: Path, long_texts: str) -> None:
    texts = [text for text in TEXTS if long_texts == "cut" or not isinstance(text, tuple)]
    store = store_words(tmp_path, tiny_engine, texts, long_texts=long_texts)
    expected = tiny_engine.encode(texts, words=True, long_texts=long_texts).words
    assert expected is not None
    assert (expected.truncated_at > 0).any() == (long_texts == "cut")
    check_same(read_words(store), expected)
    assert store.has_words
    assert store.forms == ({"single", "pair"} if long_texts == "cut" else {"single"})
    (rows, *_) = store.scan(words=False)
    assert rows.features.words is None
    assert rows.features.pairs is not None


def test_merging_and_replacing_keep_them(tiny_engine: Engine, tmp_path: Path) -> None:
    store = store_words(tmp_path, tiny_engine, TEXTS)
    compact(store, row_group_bytes=900)
    assert len(store.parts) == 1
    texts = [*TEXTS]
    texts[0], texts[30], texts[2] = "Other words, of Bonn", "", "no pair"
    stored = FeatureStore(tmp_path)
    with StoreWriter(stored, existing="replace", row_group_bytes=900) as writer:
        for row in (0, 30, 2):
            writer.append([f"text-{row}"], tiny_engine.encode([texts[row]], words=True))
    store = FeatureStore(tmp_path)
    check_same(read_words(store), tiny_engine.encode(texts, words=True).words)
    assert verify(tmp_path) == []


def test_pairs_alone_and_no_texts(tiny_engine: Engine, tmp_path: Path) -> None:
    """Chunks of which none has a word, whoever comes first."""
    nothing, pairs = tiny_engine.encode([]), tiny_engine.encode([TEXTS[2]], words=True)
    for name in ("nothing first", "pairs first"):
        store = FeatureStore(tmp_path / name, tiny_engine.spec)
        with StoreWriter(store) as writer:
            for features in (nothing, pairs) if name == "nothing first" else (pairs, nothing):
                writer.append(make_ids(len(features)), features)
            writer.append(["a"], tiny_engine.encode(["One text."], words=True))
        assert store.has_words
        assert len(store) == 2
    store = FeatureStore(tmp_path / "without", tiny_engine.spec)
    with StoreWriter(store) as writer:
        writer.append([], nothing)
        writer.append(["a"], tiny_engine.encode(["One text."]))
        writer.append([], nothing)
    assert not store.has_words


def test_older_programs_read_stores_without_words(tiny_engine: Engine, tmp_path: Path) -> None:
    store_words(tmp_path / "with", tiny_engine, TEXTS)
    with StoreWriter(FeatureStore(tmp_path / "without", tiny_engine.spec)) as writer:
        columns = {"words": [["of", "the", "user"]], "truncated_at": [1]}
        writer.append(["a"], tiny_engine.encode(["One text."]), columns)
    common = ["id", "num_tokens", "is_pair"]
    for name, version, own in (
        ("with", 3, [*common, "words", "truncated_at", "codes"]),
        ("without", 2, [*common, "codes", "words", "truncated_at"]),
    ):
        for path in (tmp_path / name).glob("*.parquet"):
            found = pq.read_schema(path)
            assert json.loads(found.metadata[b"bitheads"])["format_version"] == version
            assert found.names == own
    (rows,) = FeatureStore(tmp_path / "without").scan(["words"])
    assert rows.columns["words"].to_pylist() == [["of", "the", "user"]]
    assert rows.features.words is None
    with pytest.raises(InputError, match="'words', which is the store's own"):
        StoreWriter(FeatureStore(tmp_path / "b", tiny_engine.spec)).append(
            ["a"], tiny_engine.encode(["One text."], words=True), columns
        )


def test_what_other_programs_read_of_words(tiny_engine: Engine, tmp_path: Path) -> None:
    """As the page says it: distances from the word before."""
    store_words(tmp_path, tiny_engine, TEXTS)
    expected = tiny_engine.encode(TEXTS, words=True).words
    assert expected is not None
    rows = ds.dataset(tmp_path).to_table().sort_by("id").to_pylist()
    assert len(rows) == len(TEXTS)
    for row in rows:
        i = int(row["id"].split("-")[1])
        token = char = 0
        found = []
        for word in row["words"]:
            token, char = token + word["skipped_tokens"], char + word["skipped_chars"]
            found.append([token, word["num_tokens"], char, char + word["num_chars"]])
            token, char = token + word["num_tokens"], char + word["num_chars"]
        assert found == expected[np.array([i])].table.tolist()
        text = TEXTS[i]
        if isinstance(text, str) and row["truncated_at"] is None:
            shown = [text[start:end] for _, _, start, end in found]
            assert "".join(shown) == "".join(text.split())


def test_words_are_small(tiny_engine: Engine, tmp_path: Path) -> None:
    """At most two bytes per token, where 16 are in memory."""
    with StoreWriter(FeatureStore(tmp_path, tiny_engine.spec)) as writer:
        writer.append(make_ids(len(corpus())), tiny_engine.encode(corpus(), words=True))
    (path,) = tmp_path.glob("*.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    size = sum(c.total_compressed_size for c in columns if c.path_in_schema.startswith("words."))
    tokens = sum(FeatureStore(tmp_path).parts[i].tokens for i in range(1))
    assert size < 2 * tokens
    assert {c.compression for c in columns if c.path_in_schema != "codes"} == {"ZSTD"}


def test_columns_of_lists_are_compressed(tmp_path: Path) -> None:
    """The user's, too: what is said of a column has to be said of what it is made of."""
    spec = make_spec()
    with StoreWriter(FeatureStore(tmp_path, spec)) as writer:
        tags = [{"tags": ["one", "two"], "a.b": 1}] * 400
        writer.append(make_ids(400), make_features(spec, 400), {"more": tags})
    (path,) = tmp_path.glob("*.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    found = {
        group.column(i).path_in_schema: (
            group.column(i).compression,
            group.column(i).has_dictionary_page,
        )
        for i in range(group.num_columns)
    }
    assert found["more.tags.list.element"] == ("ZSTD", True)
    assert found["more.a.b"] == ("ZSTD", True)
    assert found["id"] == ("ZSTD", False)
    assert found["codes"] == ("UNCOMPRESSED", False)


def write_texts(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"id": f"text-{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("with_words", [True, False])
def test_a_store_keeps_words_of_all_rows_or_of_none(
    tiny_engine: Engine,
    tiny_bundle: Path,
    tmp_path: Path,
    with_words: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "store"
    message = (
        "got them without words, expected them with words, as all rows of"
        if with_words
        else "got them with words, expected them without words, as all rows of"
    )
    with StoreWriter(FeatureStore(path, tiny_engine.spec)) as writer:
        writer.append(["a"], tiny_engine.encode(["One text."], words=with_words))
        with pytest.raises(InputError, match=message):  # before there is a part
            writer.append(["b"], tiny_engine.encode(["Another."], words=not with_words))
    with StoreWriter(FeatureStore(path)) as writer, pytest.raises(InputError, match=message):
        writer.append(["b"], tiny_engine.encode(["Another."], words=not with_words))
    texts = write_texts(tmp_path / "texts.jsonl", ["A text."])
    options = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--input", texts]
    command = [str(option) for option in (*options, "--store", path)]
    spans = ["--spans"]
    assert encode.main(command + spans * (not with_words)) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert str(path) in shown
    job = EncodeJob(
        tiny_bundle, str(path), "onnxruntime", "auto", "skip", 9, 9, None, "cut", not with_words
    )
    with pytest.raises(InputError, match=message):
        encode_on_ray(job, TextFile(texts), Workers(), None)
    assert encode.main(command + spans * with_words) == 0
    assert len(FeatureStore(path)) == 2
    other = tmp_path / "other"
    with StoreWriter(FeatureStore(other, tiny_engine.spec)) as writer:
        writer.append(["c"], tiny_engine.encode(["One text."], words=not with_words))
    (part,) = other.glob("*.parquet")
    part.rename(path / "part-00000009-x.parquet")
    with pytest.raises(StoreError, match="They are of two stores"):
        FeatureStore(path)
    assert any("They are of two stores" in wrong for wrong in verify(path))


def test_the_command_tells_of_words(
    tiny_engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_words(tmp_path / "with", tiny_engine, TEXTS)
    with StoreWriter(FeatureStore(tmp_path / "without", tiny_engine.spec)) as writer:
        writer.append(["a"], tiny_engine.encode(["One text."]))
    for name in ("with", "without"):
        assert store_command.main(["info", str(tmp_path / name)]) == 0
        assert ("words of the texts are stored" in capsys.readouterr().out) == (name == "with")
        assert store_command.main(["info", "--json", str(tmp_path / name)]) == 0
        info = json.loads(capsys.readouterr().out)
        assert info["words"] == (name == "with")
        assert info["columns"] == {}


def change_words(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[pa.Table], pa.Table]:
    """Other numbers in parts of the words, or in truncated_at."""

    def change(table: pa.Table) -> pa.Table:
        column = table["words"].combine_chunks()
        parts = column.flatten()
        arrays = {name: parts.field(name).to_numpy().copy() for name in words_column.PARTS}
        at = table["truncated_at"].to_pylist()
        for name, make in changes.items():
            if name == "truncated_at":
                at = make(np.array(at)).tolist()
            else:
                arrays[name] = make(arrays[name])
        struct = pa.StructArray.from_arrays(
            [pa.array(a, pa.int32()) for a in arrays.values()],
            fields=[*column.type.value_type],
        )
        made = {
            "words": pa.ListArray.from_arrays(column.offsets, struct, column.type),
            "truncated_at": pa.array(at, pa.int32()),
        }
        for name, array in made.items():
            field = table.schema.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, array)
        return table

    return change


def at_third(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[:2], [value], array[3:]])

    return change


WRONG = {
    "has no token": change_words(num_tokens=at_third(0)),
    "has no character": change_words(num_chars=at_third(0)),
    "has a token that is not its text's": change_words(num_tokens=at_third(99)),
    "begins before the one before it ends": change_words(skipped_chars=at_third(-1)),
    "ends past all texts": change_words(num_chars=at_third(2**31 - 1)),
    "is before its text": change_words(truncated_at=lambda at: np.where(at == None, -5, at)),  # noqa: E711
    "is of a pair": lambda table: table.set_column(
        2, table.schema.field(2), pa.array([True] * len(table))
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_words_that_no_writer_writes(
    tiny_engine: Engine, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = schema.make_table
    monkeypatch.setattr(schema, "make_table", lambda *args: WRONG[what](make(*args)))
    with StoreWriter(FeatureStore(tmp_path, tiny_engine.spec)) as writer:
        texts = ["One text of six words.", "Another."]
        writer.append(["a", "b"], tiny_engine.encode(texts, words=True))
    with pytest.raises(StoreError, match=f"got words of which one {what}"):
        list(FeatureStore(tmp_path).scan())
    (wrong,) = verify(tmp_path)
    assert what in wrong


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.set_column(2, "is_pair", pa.nulls(len(table), pa.bool_())),
        lambda table: table.set_column(3, "words", pa.nulls(len(table), table["words"].type)),
        lambda table: table.set_column(3, "words", pa.array([[1]] * len(table))),
        lambda table: table.drop_columns(["truncated_at"]),
    ],
    ids=["no forms", "no words", "words that are numbers", "no truncated_at"],
)
def test_columns_that_no_writer_writes(
    tiny_engine: Engine, tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    from bitheads.engine.store import sealed

    features = tiny_engine.encode(["One text.", "Another."], words=True)
    whole = schema.make_schema(tiny_engine.spec, words=True)
    table = change(schema.make_table(pa.array(["a", "b"]), features, {}, whole))
    table = table.replace_schema_metadata(whole.metadata)
    with (tmp_path / "part-00000000-a.parquet").open("wb") as file:
        writer = sealed.SealedWriter(file, table.schema)
        writer.write(table)
        writer.close({"tokens": int(features.offsets[-1]), "replaces": [], "store": "ab"})
    with pytest.raises(StoreError, match="part-00000000-a"):
        list(FeatureStore(tmp_path).scan())


def test_bytes_are_the_same_every_time(tiny_engine: Engine) -> None:
    """Golden: whoever changes them raises the version."""
    table = np.array([[1, 2, 0, 4], [3, 1, 5, 6], [1, 1, 2, 9], [7, 3, 9, 10]], np.int32)
    words = Words(
        table, np.array([0, 2, 2, 4]), np.array([-1, -1, 10]), np.array([True, False, True])
    )
    found = {name: column.to_pylist() for name, column in words_column.make_columns(words).items()}
    assert found["truncated_at"] == [None, None, 10]
    assert [[[*word.values()] for word in text] for text in found["words"]] == [
        [[1, 2, 0, 4], [0, 1, 1, 1]],
        [],
        [[1, 1, 2, 7], [5, 3, 0, 1]],
    ]
    assert [*found["words"][0][0]] == ["skipped_tokens", "num_tokens", "skipped_chars", "num_chars"]


@pytest.fixture
def bundle(own_bundle: Path) -> Path:
    """A bundle with a head of words, and another."""
    spec = Engine.load(own_bundle, "onnxruntime").spec
    for head in (random_span_head(spec), random_head(spec, "tone")):
        write_head(head, own_bundle / "heads" / f"{head.task}.safetensors")
    return own_bundle


def read_spans(path: Path) -> dict[str, tuple[list[dict[str, Any]], int | None]]:
    rows = ds.dataset(path / "task=names").to_table().to_pylist()
    found = {row["id"]: (row["spans"], row["truncated_at"]) for row in rows}
    assert len(found) == len(rows)
    return found


def expected_spans(engine: Engine, texts: list[Text], **options: Any) -> dict[str, Any]:
    prediction = engine.predict(texts, ["names"], **options)["names"]
    rows = zip(prediction.answered, prediction.spans, prediction.truncated_at, strict=True)
    return {
        f"text-{i}": ([vars(span) for span in spans], at)
        for i, (has_answer, spans, at) in enumerate(rows)
        if has_answer
    }


@pytest.mark.parametrize("long_texts", ["cut", "split"])
@pytest.mark.parametrize("runner", ["local", "workers of ray"])
def test_spans_of_stored_texts_are_those_of_texts(
    bundle: Path, tmp_path: Path, long_texts: str, runner: str
) -> None:
    """Through the commands, or through what Ray's workers do, to the last bit."""
    texts = [text for text in TEXTS if isinstance(text, str) and text.strip()]
    file = write_texts(tmp_path / "texts.jsonl", texts)
    store, output = str(tmp_path / "store"), str(tmp_path / "answers")
    if runner == "local":
        options = ["--bundle", bundle, "--backend", "onnxruntime", "--store", store]
        encoding = [*options, "--input", file, "--spans", "--long-texts", long_texts]
        assert encode.main([*map(str, encoding)]) == 0
        filling = ["--bundle", bundle, "--store", store, "--output", output, "--probabilities"]
        assert backfill.main([*map(str, filling)]) == 0
    else:
        job = EncodeJob(
            bundle, store, "onnxruntime", "auto", "skip", 16, 9, None, long_texts, words=True
        )
        with Engine.load(bundle, "onnxruntime") as engine:
            opened = FeatureStore(store, engine.spec)
        with StoreWriter(opened) as writer:
            blocks, _ = plan_encoding(TextFile(file), writer, "skip", 16)
        worker = EncodeWorker(job, 1, TextFile(file), "0")
        assert sum(worker.do(block) for block in blocks) == len(texts)
        answering = BackfillWorker(BackfillJob(bundle, store, output, None, True), 1)
        for part in FeatureStore(store).parts:
            answering.do({"name": part.name})
    with Engine.load(bundle, "onnxruntime") as engine:
        expected = expected_spans(engine, texts, long_texts=long_texts)
    found = read_spans(tmp_path / "answers")
    assert found == expected
    assert sum(len(spans) for spans, _ in found.values()) > 20
    assert any(at is not None for _, at in found.values()) == (long_texts == "cut")
    tones = ds.dataset(tmp_path / "answers" / "task=tone").to_table()
    assert tones.num_rows == len(texts)


def test_texts_of_no_spans_and_pairs(bundle: Path, tmp_path: Path) -> None:
    """Pairs have no row, blank texts an empty list."""
    with Engine.load(bundle, "onnxruntime") as engine:
        store = store_words(tmp_path / "store", engine, TEXTS)
        expected = expected_spans(engine, TEXTS)
    job = Backfill(store, read_heads(bundle, ["names"]), tmp_path / "answers")
    assert job.run(job.prepare()) == len(TEXTS)
    found = read_spans(tmp_path / "answers")
    assert found == expected
    assert {"text-2", "text-6"}.isdisjoint(found)
    assert found["text-1"] == ([], None)
    path = next((tmp_path / "answers" / "task=names").glob("*.parquet"))
    fields = {field.name: field for field in pq.read_schema(path)}
    assert [*fields] == ["id", "spans", "truncated_at", "task", "head"]
    assert [name for name, field in fields.items() if field.nullable] == ["truncated_at"]
    assert str(fields["spans"].type) == (
        "list<element: struct<start: int32, end: int32, label: string, probability: float>>"
    )


@pytest.mark.parametrize("quantization", ["uint8", "float16"])
def test_spans_of_other_codes(tmp_path: Path, quantization: str) -> None:
    from bitheads.engine.heads.cpu import load_head, predict_heads
    from bitheads.engine.jobs.answers import TaskHead

    spec = make_spec(quantization=quantization)
    features = make_features_of_words(spec, 40)
    if quantization == "float16":
        values = np.random.default_rng(0).normal(size=(len(features.codes), spec.dim))
        features = replace(features, codes=values.astype(np.float16).view(np.uint8))
    store = FeatureStore(tmp_path / "store", spec)
    with StoreWriter(store) as writer:
        writer.append(make_ids(40), features)
    head = load_head(random_span_head(spec))
    job = Backfill(store, [TaskHead(head, "0")], tmp_path / "answers")
    assert job.run(job.prepare()) == 40
    spans = predict_heads(features, [head])["names"].spans
    found = read_spans(tmp_path / "answers")
    assert [found[name][0] for name in make_ids(40)] == [[*map(vars, one)] for one in spans]
    assert any(spans)


def test_stores_without_words(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A head of words that is named is an error before the work, one that is not is left out."""
    with (
        Engine.load(bundle, "onnxruntime") as engine,
        StoreWriter(FeatureStore(tmp_path / "store", engine.spec)) as writer,
    ):
        writer.append(make_ids(3), engine.encode(["One text.", "Another.", "A third."]))
    options = ["--bundle", bundle, "--store", tmp_path / "store", "--output", tmp_path / "answers"]
    command = [*map(str, options)]
    assert backfill.main([*command, "--tasks", "names", "tone"]) == 1
    assert "/store keeps none. Encode the texts with `bitheads encode" in capsys.readouterr().err
    assert not (tmp_path / "answers").exists()
    assert backfill.main(command) == 0
    shown = capsys.readouterr()
    assert "so there are no answers of names. Encode the texts with" in shown.err
    assert "3 texts, 1 tasks" in shown.out
    assert [path.name for path in (tmp_path / "answers").glob("[!.]*")] == ["task=tone"]
    (bundle / "heads" / "tone.safetensors").unlink()
    assert backfill.main(command) == 1
    assert "bitheads encode --spans" in capsys.readouterr().err
    store = FeatureStore(tmp_path / "store")
    assert [one.head.task for one in fitting_heads(read_heads(bundle, None), store)] == ["names"]


def test_others_read_spans(bundle: Path, tmp_path: Path) -> None:
    import duckdb
    import pandas
    import polars

    with Engine.load(bundle, "onnxruntime") as engine:
        store = store_words(tmp_path / "store", engine, TEXTS)
        expected = expected_spans(engine, TEXTS)
        words_of_texts = engine.encode(TEXTS, words=True).words
    assert words_of_texts is not None
    tables = {f"text-{i}": words_of_texts[np.array([i])].table for i in range(len(TEXTS))}
    job = Backfill(store, read_heads(bundle, ["names"]), tmp_path / "answers")
    job.run(job.prepare())
    found = sorted(
        (name, span["start"], span["end"], span["label"], span["probability"])
        for name, (spans, _) in expected.items()
        for span in spans
    )
    files = str(tmp_path / "answers" / "task=names" / "*.parquet")
    query = f"""
        SELECT id, span.start, span."end", span.label, span.probability
        FROM (SELECT id, unnest(spans) AS span FROM '{files}')
    """
    assert sorted(duckdb.sql(query).fetchall()) == found
    frame = polars.scan_parquet(files).explode("spans").collect()
    frame = frame.filter(polars.col("spans").is_not_null()).unnest("spans")
    columns = ["id", "start", "end", "label", "probability"]
    assert sorted(frame.select(columns).rows()) == found
    rows = pandas.read_parquet(tmp_path / "answers" / "task=names")
    exploded = [
        (row.id, *(span[column] for column in columns[1:]))
        for row in rows.itertuples()
        for span in row.spans
    ]
    assert sorted(exploded) == found
    cut = f"SELECT id, truncated_at FROM '{files}' WHERE truncated_at IS NOT NULL"
    assert duckdb.sql(cut).fetchall() == [
        (name, at) for name, (_, at) in expected.items() if at is not None
    ]
    counts = f"""
        SELECT id, count(*), sum(word.num_tokens)
        FROM (SELECT id, unnest(words) AS word FROM '{tmp_path / "store"}/*.parquet') GROUP BY id
    """
    words = [(name, len(rows), rows[:, 1].sum()) for name, rows in tables.items() if len(rows)]
    assert sorted(duckdb.sql(counts).fetchall()) == sorted(words)
