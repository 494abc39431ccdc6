"""The benchmark of search: its parts by themselves, and a quick run from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks.search import corpus, table, ways
from bitheads import Engine, InputError
from bitheads.engine.features.embedding import RANGES


@pytest.fixture(scope="module")
def bundle(build_bundle: Callable[..., Path]) -> Path:
    return build_bundle("bert", embedding="mean")


@pytest.fixture(scope="module")
def made(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    return corpus.encoded(bundle, tmp_path_factory.mktemp("search"), corpus.texts_of(None, 150))


def test_texts_are_short_and_come_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = ["0\tone", "1\tboth", "0\t" + "long " * 100, f"1\tonly {name}"]
        (tmp_path / name / "train.tsv").write_text("\n".join(["label\ttext", *rows]))
    assert sorted(corpus.texts_of(tmp_path, 100)) == ["both", "one", "only a", "only b"]
    assert corpus.texts_of(tmp_path, 2) == corpus.texts_of(tmp_path, 100)[:2]


def test_what_is_stored_is_what_the_engine_gives(bundle: Path, tmp_path: Path) -> None:
    """Also from a store that an earlier run of more texts left."""
    texts = corpus.texts_of(None, 30)
    corpus.encoded(bundle, tmp_path, texts)
    found = corpus.encoded(bundle, tmp_path, texts[:20])
    with Engine.load(bundle) as engine:
        vectors = engine.embed(texts[:20])
        signs, int8 = (engine.embed(texts[:20], precision=p) for p in ("ubinary", "int8"))
        codes = engine.encode(texts[:20])
        least, largest = engine.embedder.weights[RANGES]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors, vectors / lengths, atol=1e-5)
    # One that is almost 0, or on a step's edge, may fall to the other side in another batch.
    assert (np.unpackbits(found.signs) == np.unpackbits(signs)).mean() > 0.999
    assert np.abs(found.steps.astype(int) - int8).max() <= 1
    np.testing.assert_array_equal(found.step, (largest - least) / np.float32(255))
    bits = np.unpackbits(codes[3].codes, axis=1)
    assert found.majority[3].tolist() == np.packbits(bits.mean(axis=0) > 0.5).tolist()
    assert found.tokens == codes.num_tokens.mean()


def test_what_is_found(made: corpus.Corpus) -> None:
    queries, texts = (ways.Side.of(made, rows) for rows in (slice(20), slice(20, None)))
    found = ways.recalls(queries, texts)
    assert {*found} == {*table.KEPT}
    assert found["signs"] <= found["signs, then float32"] <= 1
    assert found["majority"] <= found["majority, then float32"] <= 1
    # By brute force, in other words.
    right = 0
    for floats, signs in zip(queries.floats, queries.signs, strict=True):
        distances = np.bitwise_count(signs ^ texts.signs).sum(axis=1)
        near = {*np.argsort(distances, kind="stable")[:10].tolist()}
        right += len(near & {*np.argsort(-(texts.floats @ floats))[:10].tolist()})
    assert found["signs"] == pytest.approx(right / 200, abs=1e-4)
    candidates = texts.signs[:100]
    expected = np.argsort(-(ways.ones(candidates) @ queries.floats[0]), kind="stable")[:10]
    assert ways.rescore(queries.floats[0], candidates).tolist() == expected.tolist()


def test_too_few_texts(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.tsv").write_text("label\ttext\n0\tone\n")
    options = ["--data", str(tmp_path), "--bundle", str(bundle), "--store", str(tmp_path / "s")]
    parsed = command_line._parser().parse_args(["search", *options])
    from benchmarks.search import measure

    with pytest.raises(InputError, match="got 1 short texts, expected 20000 and 1000 queries"):
        measure.run(parsed)


def test_a_quick_run(bundle: Path, results: Path, capsys: Any) -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("usearch")
    assert command_line.main(["search", "--quick", "--bundle", str(bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    indexes = stored["result"]["timed"]["indexes"]
    assert len(indexes) == 6
    assert indexes["IndexBinaryFlat"]["recall"] == 1
    assert all(index["recall"] > 0.5 for name, index in indexes.items() if name != "IndexFlatIP")
    assert "| signs of the embedding (`ubinary`), Hamming distance | " in table.found(stored)
    assert "| IndexBinaryFlat (signs) | 2,000 | " in table.times(stored)
