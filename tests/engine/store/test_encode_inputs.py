"""`bitheads encode --input`: folders, globs and lists of files, as clusters write them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from store_cases import contents
from tiny_encoders import corpus

from bitheads import InputError
from bitheads.engine.commands.encode import main
from bitheads.engine.store import FeatureStore, StoreWriter
from bitheads.engine.store.compact import compact
from bitheads.engine.store.numbering import (
    Numbering,
    check_numbering,
    is_numbering,
    longest,
    of_digests,
)
from bitheads.engine.texts.text_files import FORMATS
from bitheads.engine.texts.text_inputs import TextInput, open_input

TEXTS = corpus()[:30]
IDS = [f"id {i}" for i in range(30)]
Run = Callable[..., int]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Run:
    """Encodes into a folder of that name."""

    def call(store: str, *options: object) -> int:
        fixed = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--store", tmp_path / store]
        return main([str(option) for option in (*fixed, *options)])

    return call


def held(folder: Path) -> dict[str, bytes]:
    return contents(FeatureStore(folder))


def table(start: int, stop: int) -> pa.Table:
    return pa.table({"id": IDS[start:stop], "text": TEXTS[start:stop]})


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder as Spark leaves one."""
    folder = tmp_path / "reviews.parquet"
    folder.mkdir()
    for number, (start, stop) in enumerate([(0, 12), (12, 12), (12, 13), (13, 30)]):
        pq.write_table(table(start, stop), folder / f"part-{number:05d}-8d1c.snappy.parquet")
        (folder / f".part-{number:05d}-8d1c.snappy.parquet.crc").write_bytes(b"crc\0")
    for name in ("_SUCCESS", "._SUCCESS.crc", "part-00009-8d1c.snappy.parquet"):
        (folder / name).touch()
    pq.write_metadata(table(0, 1).schema, folder / "_metadata")
    (folder / "_temporary").mkdir()
    pq.write_table(table(0, 5), folder / "_temporary" / "part-0.parquet")
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    pq.write_table(table(0, 30), tmp_path / "whole.parquet")
    return tmp_path / "whole.parquet"


def test_a_folder_is_its_parts_in_a_row(run: Run, tmp_path: Path, parts: Path, whole: Path) -> None:
    assert run("one", "--input", whole) == 0
    expected = held(tmp_path / "one")
    assert list(expected) == IDS
    names = sorted(parts.glob("part-0000[0-3]*"))
    ways = {
        "folder": [parts],
        "glob": [parts / "*.parquet"],
        "list": names,
        "uri": [parts.as_uri()],
        "uri_glob": [f"{parts.as_uri()}/part-*.parquet"],
        "glob_of_folders": [tmp_path / "rev*"],
        "any_depth": [tmp_path / "re*" / "**" / "part*"],
    }
    for name, given in ways.items():
        assert run(name, "--input", *given) == 0
        assert held(tmp_path / name) == expected, name


def test_repeated_options_are_one_list(run: Run, tmp_path: Path) -> None:
    for name, text in (("b.txt", "one\ntwo"), ("a.txt", "three\n\nfour\n")):
        (tmp_path / name).write_text(text)
    options = ["--input", tmp_path / "b.txt", "--input", tmp_path / "a.txt"]
    assert run("store", *options) == 0
    assert list(held(tmp_path / "store")) == ["0", "1", "2", "4"]  # in the order they are named


def test_hive_partitions_of_another_program(run: Run, tmp_path: Path, whole: Path) -> None:
    days = pa.array([f"2024-01-{1 + i // 10:02d}" for i in range(30)])
    ds.write_dataset(
        table(0, 30).append_column("day", days),
        tmp_path / "hive",
        format="parquet",
        partitioning=ds.partitioning(pa.schema([("day", pa.string())]), flavor="hive"),
    )
    assert run("one", "--input", whole) == 0
    assert run("hive_store", "--input", tmp_path / "hive", "--progress") == 0
    assert held(tmp_path / "hive_store") == held(tmp_path / "one")
    assert run("day", "--input", tmp_path / "hive" / "day=*2" / "*.parquet") == 0
    assert list(held(tmp_path / "day")) == IDS[10:20]


def test_a_remote_folder(run: Run, tmp_path: Path, parts: Path, whole: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(parts), "/bucket/reviews", recursive=True)
    try:
        assert run("one", "--input", whole) == 0
        for number, given in enumerate(
            ["memory://bucket/reviews", "memory://bucket/reviews/", "memory://bucket/*/part-*"]
        ):
            assert run(f"remote{number}", "--input", given) == 0
            assert held(tmp_path / f"remote{number}") == held(tmp_path / "one")
        memory.pipe("/bucket/lines/a.txt", "\n".join(TEXTS[:4]).encode())
        memory.pipe("/bucket/lines/b.txt", "\n".join(TEXTS[4:9]).encode())
        assert run("lines", "--input", "memory://bucket/lines/*.txt", "--progress") == 0
        assert [*held(tmp_path / "lines").values()] == [*held(tmp_path / "one").values()][:9]
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_uri_of_a_file_on_a_disk(run: Run, tmp_path: Path) -> None:
    folder = write_lines(tmp_path / "in", a=TEXTS[:3], b=TEXTS[3:5])
    assert run("one", "--input", (folder / "a.txt").as_uri()) == 0
    assert run("one", "--input", (folder / "b.txt").as_uri()) == 0  # as by its path
    assert len(held(tmp_path / "one")) == 3
    assert run("many", "--input", folder.as_uri()) == 0
    assert run("many", "--input", folder) == 0
    assert len(held(tmp_path / "many")) == 5


def write_lines(folder: Path, **files: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("\n".join([*lines, ""]))
    return folder


def test_rows_are_counted_across_files(run: Run, tmp_path: Path) -> None:
    whole = write_lines(tmp_path / "whole", a=TEXTS)
    assert run("one", "--input", whole / "a.txt") == 0
    folder = write_lines(tmp_path / "many", a=TEXTS[:7], b=TEXTS[7:8], c=TEXTS[8:30])
    assert run("many_store", "--input", folder) == 0
    assert held(tmp_path / "many_store") == held(tmp_path / "one")


@pytest.mark.parametrize("is_merged", [False, True])
def test_changed_files_are_refused_and_new_ones_behind_them_are_not(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_merged: bool
) -> None:
    folder = write_lines(tmp_path / "in", b=TEXTS[:7], c=TEXTS[7:9])
    assert run("store", "--input", folder) == 0
    write_lines(folder, d=TEXTS[9:12])
    assert run("store", "--input", folder) == 0
    assert "stored 3 texts" in capsys.readouterr().out
    if is_merged:
        assert compact(FeatureStore(tmp_path / "store")) == 1
    before = held(tmp_path / "store")
    write_lines(folder, a=TEXTS[20:22])
    for change in (
        lambda: None,  # one before all others
        lambda: (folder / "a.txt").rename(folder / "e.txt") and (folder / "c.txt").unlink(),
        lambda: write_lines(folder, c=TEXTS[7:8]),
    ):
        change()
        assert run("store", "--input", folder) == 1
        shown = capsys.readouterr().err
        assert "files do not begin with the" in shown
        assert held(tmp_path / "store") == before
    write_lines(folder, c=TEXTS[7:9])
    assert run("store", "--input", folder / "*.txt") == 0  # named otherwise, but the same
    assert "stored 2 texts" in capsys.readouterr().out
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert run("store", "--input", moved, "--existing", "refuse") == 1
    assert "id '0' is in store" in capsys.readouterr().err


def test_replacing_says_anew_what_is_counted(run: Run, tmp_path: Path) -> None:
    folder = write_lines(tmp_path / "in", b=TEXTS[:7], c=TEXTS[7:9])
    assert run("store", "--input", folder) == 0
    write_lines(folder, a=TEXTS[20:22])
    assert run("store", "--input", folder, "--existing", "replace") == 0
    assert run("store", "--input", folder) == 0
    assert run("anew", "--input", folder) == 0
    assert held(tmp_path / "store") == held(tmp_path / "anew")


def test_files_with_ids_may_change(
    run: Run, tmp_path: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [last] = parts.glob("part-00003*")
    last.rename(tmp_path / "last.parquet")
    assert run("store", "--input", parts) == 0
    (tmp_path / "last.parquet").rename(parts / "a-first.parquet")
    assert run("store", "--input", parts) == 0
    assert "stored 17 texts" in capsys.readouterr().out
    assert sorted(held(tmp_path / "store")) == sorted(IDS)


def test_what_a_part_may_say_of_its_numbers() -> None:
    digests = ("aa", "bb", "cc")
    said = of_digests(digests[:2])
    assert is_numbering(said._asdict())
    assert is_numbering(None)
    for wrong in (
        [],
        "bb",
        {"files": 2},
        {"files": "2", "digest": "bb"},
        {"files": True, "digest": "bb"},
        {"files": 0, "digest": "bb"},
        {"files": 2, "digest": None},
        {"files": 2, "digest": "bb", "more": 1},
    ):
        assert not is_numbering(wrong)
    check_numbering([None, said, of_digests(digests)], digests, "store")
    for files, digest in ((2, "cc"), (3, "bb"), (4, "bb"), (1 << 70, "cc")):
        with pytest.raises(InputError, match="its 3 files do not begin with the"):
            check_numbering([said, Numbering(files, digest)], digests, "store")
    assert longest([None, said, of_digests(digests), said]) == of_digests(digests)
    assert longest([None]) is None


def refusal(run: Run, capsys: pytest.CaptureFixture[str], *options: object) -> str:
    """What is said where nothing may be encoded."""
    assert run("refused", *options) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    return shown


def test_folders_that_are_none_of_texts(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    assert f"--input {folder}: is a folder without a file" in refusal(
        run, capsys, "--input", folder
    )
    (folder / "_SUCCESS").touch()
    (folder / "part-0.txt").touch()
    assert "is a folder without a file" in refusal(run, capsys, "--input", folder)
    glob = folder / "*.jsonl"
    assert f"--input {glob}: is a glob that matches no file" in refusal(
        run, capsys, "--input", glob
    )
    assert "matches no file" in refusal(run, capsys, "--input", tmp_path / "no" / "*.txt")
    assert "no such file or folder" in refusal(run, capsys, "--input", tmp_path / "no")
    assert "cannot be reached" in refusal(run, capsys, "--input", "nowhere://x/y.txt")
    (folder / "a.jsonl").write_text('{"text": "x"}')
    (folder / "b.csv").write_text("text\nx")
    shown = refusal(run, capsys, "--input", folder)
    assert f"--input {folder}/b.csv: is csv, and {folder}/a.jsonl is jsonl" in shown
    (folder / "notes.md").write_text("x")
    assert f"--input {folder}/notes.md: its suffix says no format" in refusal(
        run, capsys, "--input", folder
    )
    assert "which the input has already" in refusal(
        run, capsys, "--input", folder / "a.jsonl", folder / "*.jsonl"
    )
    os.mkfifo(folder / "c.jsonl")
    assert f"--input {folder}/c.jsonl: is not a regular file" in refusal(
        run, capsys, "--input", folder
    )
    (folder / "_delta_log").mkdir()
    assert "is a table of Delta Lake" in refusal(run, capsys, "--input", folder)
    assert not (tmp_path / "refused").exists()


def test_links(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_lines(tmp_path / "in", a=TEXTS[:3])
    (tmp_path / "link").symlink_to(folder)
    assert run("store", "--input", tmp_path / "link") == 0
    assert len(held(tmp_path / "store")) == 3
    (folder / "loop").symlink_to(folder)
    assert f"--input {folder}/loop: is a link to a folder that it is in" in refusal(
        run, capsys, "--input", folder
    )
    for pattern in ("**/*.txt", "*/*.txt"):
        assert "link" in refusal(run, capsys, "--input", folder, folder / pattern)
    (folder / "loop").unlink()
    (folder / "again.txt").symlink_to(folder / "a.txt")
    assert "a.txt, which the input has already" in refusal(run, capsys, "--input", folder)
    for target in ("nowhere.txt", "again.txt"):
        (folder / "again.txt").unlink()
        (folder / "again.txt").symlink_to(folder / target)
        assert f"--input {folder}/again.txt: " in refusal(run, capsys, "--input", folder)


def test_a_folder_of_the_name_of_a_file(run: Run, tmp_path: Path) -> None:
    write_lines(tmp_path / "texts.txt", a=TEXTS[:2])
    write_lines(tmp_path / "texts.txt" / "more.txt", a=TEXTS[2:5])
    assert run("store", "--input", tmp_path / "texts.txt") == 0
    assert len(held(tmp_path / "store")) == 5


def test_names_with_wildcards_that_are_there(run: Run, tmp_path: Path) -> None:
    folder = write_lines(tmp_path / "a[1]", b=TEXTS[:2])
    assert run("store", "--input", folder / "b.txt") == 0
    assert run("folder_store", "--input", folder) == 0
    assert held(tmp_path / "store") == held(tmp_path / "folder_store")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"id": ["k"], "body": ["x"]}, "no column 'text', got ['id', 'body']"),
        ({"text": ["x"]}, "texts and ids are in 'text' and the rows' numbers, and in"),
        ({"id": ["k"], "text": [7]}, "column 'text' is of whole numbers, expected texts as in"),
        ({"id": [7], "text": ["x"]}, "column 'id' is of whole numbers, expected texts as in"),
        ({"id": ["k"], "text": [["x"]]}, "column 'text' is of list<"),
    ],
)
def test_parts_of_other_columns(
    run: Run,
    tmp_path: Path,
    second: dict[str, list[object]],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table(0, 5), folder / "a.parquet")
    pq.write_table(pa.table(second), folder / "b.parquet")
    shown = refusal(run, capsys, "--input", folder)
    assert shown.startswith(f"error: --input {folder}/b.parquet: ")
    assert message in shown
    assert not (tmp_path / "refused").exists()


def test_other_ways_to_write_the_same_types(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table(0, 5), folder / "a.parquet")
    words = pa.array(TEXTS[5:8], pa.large_string())
    pq.write_table(pa.table({"text": words, "id": IDS[5:8]}), folder / "b.parquet")
    words = pa.array(TEXTS[8:9]).dictionary_encode()
    pq.write_table(pa.table({"id": IDS[8:9], "text": words}), folder / "c.parquet")
    assert run("store", "--input", folder) == 0
    assert list(held(tmp_path / "store")) == IDS[:9]


def test_json_lines_whose_first_row_decides(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "x", "id": 1}\n')
    (folder / "b.jsonl").write_text("\n\n")
    (folder / "c.jsonl").write_text('\n{"text": "y", "id": 2}')
    assert run("store", "--input", folder) == 0
    assert list(held(tmp_path / "store")) == ["1", "2"]
    (folder / "d.jsonl").write_text('{"text": "z"}')
    assert f"--input {folder}/d.jsonl: texts and ids are in" in refusal(
        run, capsys, "--input", folder
    )


def test_a_file_that_vanishes(
    run: Run,
    tmp_path: Path,
    parts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between listing and reading: what was encoded is stored, and the next run goes on."""
    [gone] = parts.glob("part-00003*")
    kept = tmp_path / "kept.parquet"
    shutil.copy(gone, kept)
    rows = TextInput.full_rows

    def losing(self: TextInput, **options: Any) -> object:
        gone.unlink(missing_ok=True)
        return rows(self, **options)

    with monkeypatch.context() as patch:
        patch.setattr(TextInput, "full_rows", losing)
        assert run("store", "--input", parts) == 1
        assert f"--input {gone}: cannot be read" in capsys.readouterr().err
    kept.rename(gone)
    assert run("store", "--input", parts) == 0
    assert list(held(tmp_path / "store")) == IDS


@pytest.mark.parametrize("form", FORMATS)
def test_ranges_are_the_rows(tmp_path: Path, form: str) -> None:
    """As many workers read them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (start, stop) in enumerate([(0, 12), (12, 13), (13, 30)]):
        path = folder / f"part-{number}"
        if form == "parquet":
            pq.write_table(pa.table({"text": TEXTS[start:stop]}), path)
            continue
        if form == "arrow":
            rows = pa.table({"text": TEXTS[start:stop]})
            with pa.ipc.new_stream(path, rows.schema) as stream:
                stream.write_table(rows, max_chunksize=4)
            continue
        lines = [json.dumps({"text": t}) if form == "jsonl" else t for t in TEXTS[start:stop]]
        if form in ("tsv", "csv"):
            quoted = ['"{}"'.format(line.replace('"', '""')) for line in lines]
            lines = ["text", *(quoted if form == "csv" else lines)]
        lines.insert(2, "")
        path.write_text("\n".join(lines))
    texts = open_input([str(folder)], form)
    rows = list(texts.rows())
    assert [text for _, text in rows] == TEXTS
    for count in (1, 5, 100):
        assert [row for within in texts.ranges(count) for row in texts.rows(within)] == rows


def test_a_writer_of_numbers_is_told_of_other_files(tmp_path: Path, run: Run) -> None:
    folder = write_lines(tmp_path / "in", a=TEXTS[:2], b=TEXTS[2:4])
    assert run("store", "--input", folder) == 0
    [part] = FeatureStore(tmp_path / "store").parts
    assert part.numbering is not None
    assert part.numbering.files == 2
    with StoreWriter(FeatureStore(tmp_path / "store")) as writer:  # ids of its own
        assert writer.numbering is None
