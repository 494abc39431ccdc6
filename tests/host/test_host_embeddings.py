"""The C++ host's embeddings beside Python's, which tests/export compares with others'."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_build import MIN_AGREEMENT
from marks import all_but_long
from sentence_models import MODULES, save_sentence_model
from tiny_encoders import DIM, corpus

from benchmarks.contenders.host_library import HostEngine, HostError, HostLibrary
from bitheads import Engine
from bitheads.export.config import BuildConfig
from bitheads.export.host_tokenizer import write_host_tokenizer
from bitheads.export.make_bundle import make_bundle
from bitheads.export.texts import read_texts

TEXTS = [" ".join(corpus()[i : i + 1 + i % 4]) for i in range(400)] + ["a", "a", "\u4e00 [SEP]"]
"""Of many chunks, and some of them equal."""

CLOSE = 1e-5
"""Products and lengths are summed in another order than NumPy's."""

CLOSE_IN_ANOTHER_BATCH = 1e-3
"""Hidden states in fp32 differ in their last bits; of single states, and behind several products,
that is more than of a mean."""


@pytest.fixture(scope="module")
def bundle_of(
    tiny_encoder: Callable[[str], Path],
    few_texts: Path,
    traced_once: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """A key of MODULES -> a bundle of those modules, with the tokenizer's graph."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("sentences")
            prompts = {"query": "search for: ", "passage": "a text: "}
            source = save_sentence_model(
                folder / "model", tiny_encoder("bert"), MODULES[name](), prompts=prompts
            )
            made[name] = folder / "bundle"
            config = BuildConfig(str(source), output=made[name], calibration=few_texts)
            make_bundle(config)
            write_host_tokenizer(made[name], read_texts(None), MIN_AGREEMENT)
        return made[name]

    return build


@pytest.mark.parametrize("share_batches", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("name", all_but_long(MODULES, "mean", "cls", "dense", "last"))
def test_they_are_python_s(
    name: str, share_batches: bool, library: HostLibrary, bundle_of: Callable[[str], Path]
) -> None:
    bundle = bundle_of(name)
    with (
        HostEngine(library, bundle, precision="fp32", share_batches=share_batches) as host,
        Engine.load(bundle, backend="openvino", precision="fp32") as engine,
    ):
        expected = engine.encode(TEXTS, embeddings=True)
        assert expected.embeddings is not None
        assert host.embedding_dim == expected.embeddings.shape[1]
        codes, embeddings = host.encode_with_embeddings(TEXTS)
        assert codes.codes.tobytes() == expected.codes.tobytes()
        scale = np.abs(expected.embeddings).max()
        close = scale * (CLOSE_IN_ANOTHER_BATCH if share_batches else CLOSE)
        np.testing.assert_allclose(embeddings, expected.embeddings, rtol=0, atol=close)
        np.testing.assert_allclose(host.embed(TEXTS), embeddings, rtol=0, atol=close)


@pytest.fixture(scope="module")
def host(library: HostLibrary, bundle_of: Callable[[str], Path]) -> Any:
    with HostEngine(library, bundle_of("weighted"), precision="fp32") as host:
        yield host


@pytest.fixture(scope="module")
def engine(bundle_of: Callable[[str], Path]) -> Any:
    with Engine.load(bundle_of("weighted"), backend="openvino", precision="fp32") as engine:
        yield engine


@pytest.mark.parametrize(
    "how",
    [
        {"dim": 9},
        {"dim": 9, "normalize": True},
        {"prompt_name": "query"},
        {"prompt": "of my own: "},
        {"prompt": ""},
    ],
)
def test_what_is_asked_for(host: HostEngine, engine: Engine, how: dict[str, Any]) -> None:
    found = host.embed(TEXTS[-9:], **how)
    np.testing.assert_allclose(found, engine.embed(TEXTS[-9:], **how), rtol=0, atol=CLOSE)


def test_no_texts(host: HostEngine) -> None:
    assert host.embed([]).shape == (0, DIM)


def test_pairs(host: HostEngine, engine: Engine) -> None:
    pairs = [("a first", "and a second"), ("one", "two")]
    np.testing.assert_allclose(host.embed(pairs), engine.embed(pairs), rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dim": DIM + 1}, "dim: got 65, expected 1 to 64"),
        ({"dim": -1}, "dim: got -1"),
        ({"prompt_name": "answer"}, "got 'answer', expected one of"),
        ({"prompt_name": "query", "prompt": "x"}, "expected one of them"),
    ],
)
def test_what_cannot_be_given(host: HostEngine, how: dict[str, Any], message: str) -> None:
    with pytest.raises(HostError, match=message) as found:
        host.embed(["a"], **how)
    assert found.value.status == "invalid_input"


def test_a_bundle_without(host_engine: HostEngine) -> None:
    assert host_engine.embedding_dim == 0
    with pytest.raises(HostError, match="this bundle gives none"):
        host_engine.encode_with_embeddings(["a"])


@pytest.mark.parametrize("content", [b"", b"x" * 100], ids=["empty", "no tensors"])
def test_weights_that_are_damaged(
    content: bytes, library: HostLibrary, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(bundle_of("dense"), tmp_path / "bundle"))
    (bundle / "embedding.safetensors").write_bytes(content)
    with pytest.raises(HostError) as found:
        HostEngine(library, bundle, verify=False)
    assert found.value.status == "bundle"


def test_they_are_kept_where_they_were_asked_for(
    library: HostLibrary, bundle_of: Callable[[str], Path]
) -> None:
    """And codes beside them, from the first time that a text came."""
    texts, bundle = TEXTS[:10], bundle_of("mean")
    options = {"share_batches": True, "cache_bytes": 1 << 20}
    with HostEngine(library, bundle, "fp32", **options) as host:
        codes = host.encode(texts).codes
        small = host.statistics
        vectors = host.embed(texts)  # encoded once more, as nobody had asked for them before
        large = host.statistics
        assert (small.encoded_texts, large.encoded_texts) == (10, 20)
        assert (small.cache_texts, large.cache_texts) == (10, 10)
        assert large.cache_bytes == small.cache_bytes + vectors.nbytes
        both = host.encode_with_embeddings(texts)
        np.testing.assert_array_equal(host.embed(texts), vectors)
        np.testing.assert_array_equal(both[1], vectors)
        np.testing.assert_array_equal(both[0].codes, codes)
        np.testing.assert_array_equal(host.encode(texts).codes, codes)
        assert (host.statistics.encoded_texts, host.statistics.cached_texts) == (20, 30)
        found, close = host.embed(texts[::-1]), np.abs(vectors).max() * CLOSE_IN_ANOTHER_BATCH
    with HostEngine(library, bundle, "fp32") as host:
        np.testing.assert_allclose(found, host.embed(texts[::-1]), rtol=0, atol=close)
