"""Texts that have changed since they were stored: found by their hashes, and replaced alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from random_heads import random_head
from store_cases import contents, expected, fill, make_features, make_ids, make_spec
from tiny_encoders import corpus

from bitheads import Engine, InputError, StoreError
from bitheads.engine.bundle import read_manifest
from bitheads.engine.commands.encode import main
from bitheads.engine.heads.cpu import load_head
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill
from bitheads.engine.jobs.ray_jobs import EncodeJob, EncodeWorker, plan_encoding
from bitheads.engine.store import FeatureStore, StoreWriter, compact, delete, hash_of, verify
from bitheads.engine.store.folder import Aside, Folder
from bitheads.engine.store.outdated import of_fact
from bitheads.engine.texts.text_files import TextFile

TEXTS = corpus()[:40]
IDS = [f"id {i}" for i in range(40)]


def put(path: Path, ids: list[str], seed: int) -> dict[str, bytes]:
    """Replaces; returns the new codes."""
    features = make_features(make_spec(), len(ids), seed)
    with StoreWriter(FeatureStore(path), "replace") as writer:
        writer.append(ids, features)
    return {name: one.codes.tobytes() for name, one in zip(ids, features, strict=True)}


def versions(path: Path) -> list[int]:
    found = [pq.read_schema(file).metadata[b"bitheads"] for file in sorted(path.glob("*.parquet"))]
    return [json.loads(one)["format_version"] for one in found]


def test_scattered_rows_become_a_part_of_their_own(tmp_path: Path) -> None:
    store = fill(tmp_path, texts=100)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    tokens = store.info().tokens
    edited = ["text-5", "text-105", "text-205"]
    model = {**expected(texts=100), **put(tmp_path, edited, 50)}
    assert {path: path.read_bytes() for path in files} == files
    assert versions(tmp_path) == [2, 2, 2, 4]  # which earlier programs refuse
    store.refresh()
    assert contents(store) == model
    assert [part.rows for part in store.parts] == [99, 99, 99, 3]
    info = store.info()
    assert (info.rows, info.outdated_rows, len(store)) == (300, 3, 300)
    assert info.tokens == sum(map(len, model.values())) // 8 != tokens
    assert verify(tmp_path) == []
    assert ds.dataset(tmp_path).count_rows() == 303
    # The small part is written again when its rows are edited again, or becomes another.
    model |= put(tmp_path, ["text-105"], 51)
    assert contents(FeatureStore(tmp_path)) == model
    assert versions(tmp_path) == [2, 2, 2, 4]
    model |= put(tmp_path, make_ids(60, 100), 52)  # many of one part
    assert contents(FeatureStore(tmp_path)) == model
    compact(store)
    assert contents(FeatureStore(tmp_path)) == contents(store) == model
    assert ds.dataset(tmp_path).count_rows() == 300
    assert versions(tmp_path) == [2]
    assert verify(tmp_path) == []


def test_compacting_large_parts_takes_outdated_rows_out(tmp_path: Path) -> None:
    store = fill(tmp_path, texts=100)
    model = {**expected(texts=100), **put(tmp_path, ["text-5"], 50)}
    untouched = [part.name for part in FeatureStore(tmp_path).parts[1:3]]
    compact(store, part_bytes=1)
    assert contents(store) == model
    assert versions(tmp_path) == [2, 2, 2, 2]
    assert [part.name for part in store.parts[1:3]] == untouched
    before = [part.seal for part in store.parts]
    compact(store, part_bytes=1)
    assert [part.seal for part in store.parts] == before


def answers_of(store: FeatureStore, output: Path) -> dict[str, Any]:
    head = TaskHead(load_head(random_head(store.spec, task="tone")), "0")
    job = Backfill(store, [head], output)
    job.run(job.prepare())
    rows = ds.dataset(output / "task=tone").to_table().to_pylist()
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.long)])
def test_any_order_of_writing_deleting_and_merging(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path, model, new = tmp_path / "store", dict[str, bytes](), 0
    store = FeatureStore(path, make_spec())
    for step in range(25):
        kind = chance.choice(["append", "append", "replace", "replace", "delete", "compact"])
        some = chance.sample(sorted(model), min(len(model), chance.choice([1, 2, 5, 40])))
        if kind == "append" or not some:
            ids = make_ids(chance.choice([3, 80]), new)
            new += len(ids)
            features = make_features(make_spec(), len(ids), step)
            with StoreWriter(store) as writer:
                writer.append(ids, features)
            model |= {name: one.codes.tobytes() for name, one in zip(ids, features, strict=True)}
        elif kind == "replace":
            model |= put(path, some, 100 + step)
        elif kind == "delete":
            erased = [model.pop(name) for name in some]
            store.refresh()
            assert delete(store, some).rows == len(erased)
            stored = b"".join(file.read_bytes() for file in path.glob("*"))
            assert not [codes for codes in erased if len(codes) > 16 and codes in stored]
        else:
            store.refresh()
            compact(store, chance.choice([1, 20_000, 1 << 20]))
        store.refresh()
        assert contents(store) == model
        assert verify(path) == []
        if step % 8 == 7:
            assert answers_of(store, tmp_path / "answers").keys() == model.keys()
    apart = answers_of(store, tmp_path / "anew")
    assert answers_of(store, tmp_path / "answers") == apart


@pytest.mark.parametrize("run", [compact, lambda store: delete(store, ["text-5", "text-7"])])
def test_a_crash_between_any_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[[FeatureStore], Any]
) -> None:
    """Of files that were removed some may come back, too."""
    step = Aside.publish, Folder.remove
    survived = 0
    for steps in range(40):
        path = tmp_path / str(steps)
        fill(path, texts=100)
        model = {**expected(texts=100), **put(path, ["text-5", "text-105", "text-205"], 50)}
        left = {name: codes for name, codes in model.items() if name not in ("text-5", "text-7")}
        taken = 0

        def counted(do: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: Any) -> None:
                nonlocal taken
                taken += 1
                if taken > steps:  # noqa: B023 (used in this round alone)
                    raise KeyboardInterrupt
                do(*arguments)

            return call

        monkeypatch.setattr(Aside, "publish", counted(step[0]))
        monkeypatch.setattr(Folder, "remove", counted(step[1]))
        try:
            run(FeatureStore(path))
            survived = steps
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(Aside, "publish", step[0])
        monkeypatch.setattr(Folder, "remove", step[1])
        found = contents(FeatureStore(path))
        assert left.items() <= found.items() <= model.items()
        run(FeatureStore(path))
        assert contents(FeatureStore(path)) == (model if run is compact else left)
        assert verify(path) == []
        if survived:
            break
    assert survived >= 2


@pytest.fixture
def encode(tiny_bundle: Path, tmp_path: Path) -> Callable[..., int]:
    def call(*options: object) -> int:
        fixed = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--store", tmp_path / "store"]
        path = tmp_path / "texts.jsonl"
        return main([str(option) for option in (*fixed, "--input", path, *options)])

    return call


def write(folder: Path, texts: list[str], ids: list[str] | None = None) -> None:
    rows = [{"text": text} for text in texts]
    if ids is not None:
        rows = [{"id": name, "text": text} for name, text in zip(ids, texts, strict=True)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))


def codes(engine: Engine, texts: list[Any]) -> list[bytes]:
    return [features.codes.tobytes() for features in engine.encode(texts)]


def test_encoding_again_replaces_what_changed(
    encode: Callable[..., int],
    tmp_path: Path,
    tiny_engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path, TEXTS[:30], IDS[:30])
    assert encode() == 0
    assert "stored 30 texts (30 new, 0 changed)" in capsys.readouterr().out
    edited = [*TEXTS]
    edited[3], edited[17] = "another text", TEXTS[17] + " "
    write(tmp_path, edited, IDS)
    assert encode("--existing", "skip", "--chunk-texts", 8) == 0
    shown = capsys.readouterr().out
    assert "(10 new, 0 changed)" in shown
    assert "28 unchanged, 2 changed and left as they were; 40 in all" in shown
    assert "say --existing update" in shown
    assert encode() == 0
    shown = capsys.readouterr().out
    assert "stored 2 texts (0 new, 2 changed)" in shown
    assert "38 unchanged; 40 in all" in shown
    assert "note: " not in shown
    found = contents(FeatureStore(tmp_path / "store"))
    assert found == dict(zip(IDS, codes(tiny_engine, [*edited]), strict=True))
    assert encode() == 0
    assert "stored 0 texts (0 new, 0 changed)" in capsys.readouterr().out


def test_numbers_of_rows_are_not_updated_unasked(
    encode: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another input's texts would take the place of the first's."""
    write(tmp_path, TEXTS[:9])
    assert encode() == 0
    before = contents(FeatureStore(tmp_path / "store"))
    write(tmp_path, ["other", *TEXTS[1:9]])
    capsys.readouterr()
    assert encode() == 0
    shown = capsys.readouterr().out
    assert "8 unchanged, 1 changed and left as they were" in shown
    assert "say --id-column" in shown
    assert contents(FeatureStore(tmp_path / "store")) == before
    assert encode("--existing", "update") == 0
    assert "1 changed" in capsys.readouterr().out
    assert encode("--existing", "replace") == 0
    assert "(0 new, 9 in the place of others)" in capsys.readouterr().out


def test_a_store_without_hashes(
    encode: Callable[..., int],
    tmp_path: Path,
    tiny_engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with StoreWriter(FeatureStore(tmp_path / "store", tiny_engine.spec)) as writer:
        writer.append(IDS[:5], tiny_engine.encode(TEXTS[:5]))
    write(tmp_path, ["another text", *TEXTS[1:9]], IDS[:9])
    assert encode() == 0
    shown = capsys.readouterr().out
    assert "stored 4 texts (4 new, 0 changed)" in shown
    assert "0 unchanged, 5 were stored before; 9 in all" in shown
    assert "keeps no hash of those texts" in shown
    store = FeatureStore(tmp_path / "store")
    assert store.has_text_hashes is False
    assert [*contents(store).values()] == codes(tiny_engine, TEXTS[:9])


def test_rows_of_which_some_have_hashes(tmp_path: Path) -> None:
    spec = make_spec()
    store = FeatureStore(tmp_path, spec)
    hashes = [hash_of(name) for name in "abc"]
    with StoreWriter(store) as writer:
        writer.append([*"abc"], make_features(spec, 3), text_hashes=hashes)
        writer.append([*"de"], make_features(spec, 2))
        with pytest.raises(InputError, match="text_hashes: got 1, expected 16 bytes for each of 2"):
            writer.append([*"fg"], make_features(spec, 2), text_hashes=hashes[:1])
        with pytest.raises(InputError, match="'text_hash', which is the store's own"):
            writer.append(["f"], make_features(spec, 1), {"text_hash": [b"x"]})
    store.refresh()
    assert store.has_text_hashes
    rows = [row for found in store.scan(["text_hash"]) for row in found.columns["text_hash"]]
    assert [row.as_py() for row in rows] == [*hashes, None, None]
    new = make_features(spec, 5, seed=4)
    with StoreWriter(store, "update") as writer:
        with pytest.raises(InputError, match="existing='update' finds those"):
            writer.append(["a"], make_features(spec, 1))
        texts = ["a", "B", "c", "d", "f"]
        assert writer.append([*"abcdf"], new, text_hashes=[*map(hash_of, texts)]) == 2
    kept = make_features(spec, 3)
    found = contents(FeatureStore(tmp_path))
    assert found["a"] == kept[0:1].codes.tobytes()
    assert (found["b"], found["f"]) == (new[1:2].codes.tobytes(), new[4:5].codes.tobytes())


def test_a_column_of_that_name_of_the_users_own(tmp_path: Path) -> None:
    with StoreWriter(FeatureStore(tmp_path, make_spec())) as writer:
        writer.append(["a"], make_features(make_spec(), 1), {"text_hash": ["mine"]})
    store = FeatureStore(tmp_path)
    assert store.has_text_hashes is False
    with StoreWriter(store) as writer:
        writer.append(
            ["b"], make_features(make_spec(), 1), {"text_hash": ["x"]}, text_hashes=[hash_of("b")]
        )
    store.refresh()
    assert len(store) == 2


def test_what_is_hashed() -> None:
    assert hash_of("a text").hex() == "b10a480aafd604be557a13cd7e950362"
    assert hash_of(("a", "bc")).hex() == "08e3faa21e6edd5ebc13531ff359b633"
    texts: list[Any] = ["abc", ("abc", ""), ("ab", "c"), ("a", "bc"), ("", "abc"), "abc ", ""]
    assert len({hash_of(text) for text in texts}) == len(texts)


def test_on_ray(tiny_bundle: Path, tmp_path: Path, tiny_engine: Engine) -> None:
    path = tmp_path / "store"
    job = EncodeJob(tiny_bundle, str(path), "onnxruntime", "auto", "update", 16, 1024, None, "cut")
    spec = read_manifest(tiny_bundle).spec

    def run(*, then: int | None = None) -> tuple[int, list[str]]:
        texts = TextFile(tmp_path / "texts.jsonl")
        with StoreWriter(FeatureStore(path, spec), "update") as writer:
            blocks, found = plan_encoding(texts, writer, "update", 16)
            for block in blocks[:then]:
                for _ in range(2):  # once more by a worker that outlived its driver
                    EncodeWorker(job, 1, texts, writer.store_id).do(block)
        return found.changed, [block["name"] for block in blocks]

    write(tmp_path, TEXTS, IDS)
    run()
    texts = [*TEXTS]
    names: list[str] = []
    for round_ in range(3):  # and back again to a text that was there before
        texts[3], texts[4], texts[38] = f"new {round_ % 2}", f"more {round_ % 2}", "one for all"
        write(tmp_path, texts, IDS)
        changed, first = run(then=1)
        assert changed == (2 if round_ else 3)
        names += first
        run()
        store = FeatureStore(path)
        assert contents(store) == dict(zip(IDS, codes(tiny_engine, [*texts]), strict=True)) | {}
        assert verify(path) == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "fact",
    [
        [],
        {"seal": 3},
        {"seal": {"rows": [1, 1], "tokens": 2}},
        {"seal": {"rows": [-1], "tokens": 0}},
    ],
)
def test_outdated_rows_that_nobody_writes(fact: Any) -> None:
    with pytest.raises(ValueError, match=r"no object|not said|whole numbers|not in order"):
        of_fact(fact)


def test_outdated_rows_that_are_not_there(tmp_path: Path) -> None:
    from bitheads.engine.store.outdated import of_rows
    from bitheads.engine.store.part_writer import PartWriter, new_name

    store = fill(tmp_path, parts=1)
    assert store.schema is not None
    outdates = {store.parts[0].seal: of_rows([20], 1)}
    PartWriter(store.folder, new_name(5), store.schema, store.id or "", outdates=outdates).publish()
    with pytest.raises(StoreError, match="says of its row 20 that it is outdated"):
        FeatureStore(tmp_path)
    assert any("row 20" in sentence for sentence in verify(tmp_path))
