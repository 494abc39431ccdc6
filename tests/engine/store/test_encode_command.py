"""`bitheads encode`: files of texts into a store, to be gone on with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_cases import contents
from tiny_encoders import corpus

from bitheads import Engine, InputError, PackedFeatures
from bitheads.engine.commands.encode import main
from bitheads.engine.jobs import encode
from bitheads.engine.jobs.encode import encode_texts
from bitheads.engine.store import FeatureStore, StoreWriter
from bitheads.engine.texts.text_files import TextFile
from bitheads.engine.types import Text

TEXTS = corpus()[:40]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Callable[..., int]:
    def call(*options: object) -> int:
        fixed = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--store", tmp_path / "store"]
        return main([str(option) for option in (*fixed, *options)])

    return call


def codes(engine: Engine, texts: list[Text]) -> list[bytes]:
    return [features.codes.tobytes() for features in engine.encode(texts)]


def write(path: Path, texts: list[str], ids: list[str]) -> Path:
    """The same texts in the format that the suffix says."""
    rows = list(zip(ids, texts, strict=True))
    if path.suffix == ".tsv":
        lines = ["id\ttext", *("\t".join(row) for row in rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *rows])
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"text": text, "id": name, "more": 1}) for name, text in rows]
        path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts, "id": ids}), path)
    else:
        path.write_text("\r\n".join(texts), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".csv", ".jsonl", ".parquet"])
def test_formats(
    run: Callable[..., int], tmp_path: Path, tiny_engine: Engine, suffix: str, capsys: object
) -> None:
    names = [str(i) if suffix == ".txt" else f"id {i}" for i in range(len(TEXTS))]
    path = write(tmp_path / f"texts{suffix}", TEXTS, names)
    assert run("--input", path, "--chunk-texts", 16) == 0
    store = FeatureStore(tmp_path / "store")
    assert contents(store) == dict(zip(names, codes(tiny_engine, list(TEXTS)), strict=True))


def test_quotes_that_are_no_text(
    run: Callable[..., int], tmp_path: Path, tiny_engine: Engine
) -> None:
    path = tmp_path / "texts.tsv"
    path.write_text('id\ttext\n1\t"She said ""yes"",\nthen left"\n2\tplain\n')
    assert run("--input", path, "--quotes", "csv") == 0
    found = contents(FeatureStore(tmp_path / "store"))
    expected = codes(tiny_engine, ['She said "yes",\nthen left', "plain"])
    assert found == dict(zip("12", expected, strict=True))


def test_a_rerun_encodes_what_is_missing(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write(tmp_path / "few.txt", TEXTS[:25], [""] * 25)
    all_of_it = write(tmp_path / "all.txt", TEXTS, [""] * 40)
    assert run("--input", few) == 0
    assert "stored 25 texts" in capsys.readouterr().out
    assert run("--input", all_of_it) == 0
    assert "stored 15 texts" in (shown := capsys.readouterr().out)
    assert "25 unchanged; 40 in all" in shown
    before = contents(FeatureStore(tmp_path / "store"))
    assert run("--input", all_of_it, "--progress") == 0
    printed = capsys.readouterr()
    assert "stored 0 texts" in printed.out
    assert "encode: " in printed.err
    assert contents(FeatureStore(tmp_path / "store")) == before
    assert run("--input", all_of_it, "--existing", "refuse") == 1
    assert "id '0' is in store" in capsys.readouterr().err


def test_replacing(run: Callable[..., int], tmp_path: Path, tiny_engine: Engine) -> None:
    path = tmp_path / "texts.txt"
    assert run("--input", write(path, TEXTS[:10], [""] * 10)) == 0
    changed = [*TEXTS[:4], *TEXTS[20:30]]
    assert run("--input", write(path, changed, [""] * 14), "--existing", "replace") == 0
    found = contents(FeatureStore(tmp_path / "store"))
    assert [found[str(i)] for i in range(14)] == codes(tiny_engine, list(changed))


def test_pairs_and_named_columns(
    run: Callable[..., int], tmp_path: Path, tiny_engine: Engine
) -> None:
    pairs: list[Text] = [(TEXTS[i], TEXTS[i + 1]) for i in range(5)]
    named = tmp_path / "pairs.tsv"
    named.write_text("\n".join(["text_a\ttext_b", *("\t".join(pair) for pair in pairs)]))
    chosen = tmp_path / "chosen.data"
    lines = [json.dumps({"q": a, "a": b, "key": i + 5}) for i, (a, b) in enumerate(pairs)]
    chosen.write_text("\n".join(lines))
    assert run("--input", named) == 0
    options = ["--text-column", "q", "--pair-column", "a", "--id-column", "key"]
    assert run("--input", chosen, "--format", "jsonl", *options) == 0
    found = contents(FeatureStore(tmp_path / "store"))
    assert list(found) == [str(i) for i in range(10)]
    assert list(found.values()) == 2 * codes(tiny_engine, pairs)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", None, [], "cannot be read"),
        ("a.dat", "x", [], "its suffix says no format"),
        ("a.txt", "x", ["--id-column", "id"], "plain lines have no columns"),
        ("a.tsv", "body\nx", [], "no column 'text', got ['body']"),
        ("a.tsv", "text\tn\nx", [], "line 2 has 1 columns, expected 2"),
        ("a.jsonl", '{"text": 3}', [], "row 0 has 3 in column 'text', expected a text"),
        ("a.jsonl", "[1]", [], "line 1 is not a JSON object"),
        (
            "a.jsonl",
            '{"text": "x", "k": null}',
            ["--id-column", "k"],
            "row 0 has None in column 'k', expected an id",
        ),
        ("a.jsonl", '{"id": "a", "text": "x"}\n{"text": "y"}', [], "row 1 has None in column 'id'"),
        ("a.jsonl", '{"text": "x"}\n{"id": "a", "text": "y"}', [], "row 1 has an 'id', which the"),
        ("a.jsonl", '{"text": "x"}\n{"text": null}', [], "row 1 has None in column 'text'"),
        (
            "a.jsonl",
            '{"text_a": "x", "text_b": "y"}\n{"text_a": "x"}',
            [],
            "row 1 has None in column 'text_b', expected a text",
        ),
        ("a.jsonl", '{"text": "x", "id": true}', [], "row 0 has True in column 'id'"),
        ("a.jsonl", '{"text": "x", "id": {"a": 1}}', [], "row 0 has {'a': 1} in column 'id'"),
        ("a.jsonl", '{"text": "x", "id": 1.0}', [], "row 0 has 1.0 in column 'id'"),
        ("a.jsonl", '{"text": "x", "id": "\\ud800"}', [], r"row 0 has '\ud800' in column 'id'"),
        ("a.jsonl", '{"text": "\\ud800", "id": 1}', [], r"row 0 has '\ud800' in column 'text'"),
        ("a.tsv", "id\ttext\tid\n1\tx\t2", [], "more than one column 'id', got"),
        ("a.tsv", "id\ttext\n1\tx\n1\ty", [], "id '1' comes twice"),
        ("a.tsv", 'text\n"a ""b"""', [], "line 2 has the cell"),
        ("a.tsv", 'text\n"a" b', ["--quotes", "csv"], "row 0: cell 1"),
        ("a.txt", b"\xff", [], "cannot be read"),
        ("a.parquet", "no", [], "cannot be read"),
        ("a.tsv", "a\tb\nx\ty", ["--pair-column", "b"], "--pair-column: expected --text-column"),
    ],
)
def test_errors(
    run: Callable[..., int],
    tmp_path: Path,
    name: str,
    content: str | bytes | None,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run("--input", tmp_path / name, *options) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown


def rows_of(path: Path) -> list[tuple[str, Text]]:
    """Read whole; in ranges, as many workers do, they must be the same."""
    file = TextFile(path)
    rows = list(file.rows())
    for count in (1, 2):
        assert [row for within in file.ranges(count) for row in file.rows(within)] == rows
    return rows


@pytest.mark.parametrize("ids", [["1", None], [b"1", b"2"], [1.0, 2.0], [True, False]])
def test_parquet_ids_that_are_none(tmp_path: Path, ids: list[object]) -> None:
    """The number of a row without an id may be the id of another."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ids, "text": ["x", "y"]}), path)
    with pytest.raises(InputError, match=rf"row {ids.index(None) if None in ids else 0} has .*id:"):
        list(TextFile(path).rows())


def test_parquet_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [7, 5], "text": ["x", "y"]}), path)
    assert rows_of(path) == [("7", "x"), ("5", "y")]
    pq.write_table(pa.table([["x"], ["y"]], names=["text", "text"]), path)
    with pytest.raises(InputError, match="more than one column 'text'"):
        list(TextFile(path).rows())


def test_the_first_row_decides_for_all_ranges(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"text": "x"}\n{"text": "y"}\n{"id": "a", "text": "z"}')
    last = list(TextFile(path).ranges(1))[-1]
    with pytest.raises(InputError, match="row 3 has an 'id'"):
        list(TextFile(path).rows(last))


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("a.txt", "x\ny", ("0", "x")),
        ("a.tsv", "id\ttext\nk\tx\nl\ty", ("k", "x")),
        ("a.csv", '"id","text"\nk,x\nl,y', ("k", "x")),
        ("a.jsonl", '{"id": "k", "text": "x"}\n{"id": "l", "text": "y"}', ("k", "x")),
    ],
)
def test_a_byte_order_mark_is_no_text(
    tmp_path: Path, name: str, content: str, first: tuple[str, str]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8-sig")
    assert rows_of(path)[0] == first


def test_a_pipe_is_refused(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waited forever."""
    path = tmp_path / "texts.txt"
    os.mkfifo(path)
    assert run("--input", path) == 1
    assert "is not a regular file. Write the texts to a file first" in capsys.readouterr().err


def test_a_second_input_without_ids_is_told_of(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--input", write(tmp_path / "a.txt", TEXTS[:3], [""] * 3)) == 0
    assert "note: " not in capsys.readouterr().out
    assert run("--input", write(tmp_path / "b.txt", TEXTS[5:9], [""] * 4)) == 0
    assert "note: other texts are stored under the ids" in capsys.readouterr().out
    for _ in range(2):
        assert run("--input", write(tmp_path / "c.tsv", TEXTS[9:11], ["a", "b"])) == 0
    assert "note: " not in capsys.readouterr().out


def test_long_texts_are_looked_up_in_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "LOOK_UP_TEXTS", 3)
    monkeypatch.setattr(encode, "LOOK_UP_CHARACTERS", 10)
    sizes: list[Text] = ["x" * 9, "x", ("x" * 5, "x" * 6), "x", "x", "x", "x"]
    chunks = list(encode._look_ups((str(i), text) for i, text in enumerate(sizes)))
    assert [[name for name, _ in chunk] for chunk in chunks] == [
        ["0", "1"],
        ["2"],
        ["3", "4", "5"],
        ["6"],
    ]


@pytest.mark.parametrize("option", ["--part-mb", "--part-seconds", "--block-texts", "--threads"])
def test_numbers_that_are_none(
    run: Callable[..., int], tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "texts.txt", TEXTS[:1], [""])
    is_whole = option in ("--block-texts", "--threads")
    for value in ("0", "-1") if is_whole else ("0.0", "-1.0", "nan", "inf"):
        assert run("--input", path, option, value) == 1
        assert f"{option}: got {value}, expected" in capsys.readouterr().err


def test_what_was_encoded_before_an_error_is_stored(tiny_engine: Engine, tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[str, Text]]:
        for i, text in enumerate(TEXTS):
            yield str(i), text
        raise InputError("the file is gone")

    store = FeatureStore(tmp_path, tiny_engine.spec)
    many = (row for _ in range(1) for row in rows())
    with pytest.raises(InputError, match="is gone"), StoreWriter(store) as writer:
        encode_texts(tiny_engine, many, writer, chunk_texts=8)
    assert len(FeatureStore(tmp_path, tiny_engine.spec)) == 0  # less than one look-up was read

    class Failing:
        def update(self, count: int) -> None:
            if len(writer.stored) == 24:
                raise KeyboardInterrupt

    pairs = list(zip(map(str, range(40)), TEXTS, strict=True))
    with pytest.raises(KeyboardInterrupt), StoreWriter(store) as writer:
        encode_texts(tiny_engine, pairs, writer, chunk_texts=8, bar=Failing())
    assert len(FeatureStore(tmp_path)) == 24


def test_the_count_is_that_of_the_rows(tmp_path: Path) -> None:
    for suffix in (".txt", ".tsv", ".csv", ".jsonl", ".parquet"):
        file = TextFile(write(tmp_path / f"t{suffix}", TEXTS, [str(i) for i in range(40)]))
        assert abs(file.count() - len(list(file.rows()))) <= 1


def test_ctrl_c_loses_nothing_that_was_encoded(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "texts.txt", [*TEXTS] * 500, [""] * 20000)
    command = [sys.executable, "-m", "bitheads", "encode", "--bundle", tiny_bundle, "--input", path]
    command += ["--store", tmp_path / "store", "--chunk-texts", 64, "--part-seconds", 0.3]
    words = [str(word) for word in [*command, "--backend", "onnxruntime"]]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list((tmp_path / "store").glob("*.parquet")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr is not None
        assert "run it again to go on" in process.stderr.read()
    assert not list((tmp_path / "store").glob(".*.partial"))
    store = FeatureStore(tmp_path / "store")
    found = PackedFeatures.concat([rows.features for rows in store.scan()])
    assert len(found) % 64 == 0
    assert 0 < len(found) < 20000
