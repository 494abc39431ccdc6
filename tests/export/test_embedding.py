"""Embeddings beside those of sentence-transformers, of checkpoints that it wrote itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from causal_encoder import save_causal_encoder
from numpy.typing import NDArray
from sentence_models import MODULES
from sentence_models import save_sentence_model as write_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from sentence_transformers.util.quantization import quantize_embeddings
from tiny_encoders import DIM, corpus

from bitheads import BundleError, Engine, InputError
from bitheads.engine.bundle import EMBEDDING, MANIFEST, Artifact, read_manifest
from bitheads.engine.features.embedding import RANGES, Embedder, EmbeddingSpec, Step
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle
from bitheads.export.source.checkpoint import find_checkpoint
from bitheads.export.source.sentence_modules import read_sentence_modules

BuildBundle = Callable[..., Path]

COSINE = 0.9999
"""With those of sentence-transformers, in fp32."""

NUM_TEXTS = 1000


def texts_of_all_lengths() -> list[str]:
    """Some longer than the encoder reads, some empty, some equal."""
    lines = corpus()
    texts = [" ".join(lines[i : i + 1 + i % 5]) for i in range(NUM_TEXTS - 4)]
    return [*texts, "", "a", "a", "\u00fc\u00df \u4e00 [SEP]"]


@pytest.fixture(scope="session")
def save_sentence_model(
    tiny_encoder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Has sentence-transformers write a model of some modules behind the tiny BERT."""

    def save(modules: Sequence[Any], encoder: Path | None = None, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("sentences") / "model"
        return write_model(folder, encoder or tiny_encoder("bert"), modules, **options)

    return save


@pytest.fixture(scope="session")
def build_of(
    few_texts: Path, traced_once: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """(folder, BuildConfig options) -> a bundle of it in fp32; not to be written to."""
    made: dict[str, Path] = {}

    def build(folder: Path, **options: Any) -> Path:
        key = f"{folder} {options}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("bundles") / "sentences"
            given: dict[str, Any] = {"precision": "fp32", "calibration": few_texts, **options}
            make_bundle(BuildConfig(encoder=str(folder), output=made[key], **given))
        return made[key]

    return build


def judge(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def least_cosine(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Of those that are not 0, which have to be so in both."""
    assert ((found != 0).any(axis=1) == (expected != 0).any(axis=1)).all()
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1)[lengths > 0] / lengths[lengths > 0]).min())


@pytest.mark.parametrize("name", MODULES)
def test_embeddings_are_those_of_sentence_transformers(
    name: str, save_sentence_model: Callable[..., Path], build_of: Callable[..., Path]
) -> None:
    folder = save_sentence_model(MODULES[name]())
    bundle = build_of(folder)
    texts = texts_of_all_lengths()
    expected = judge(folder).encode(texts, show_progress_bar=False)
    for backend in ("openvino", "onnxruntime"):
        with Engine.load(bundle, backend=backend, precision="fp32") as engine:
            found = engine.embed(texts)
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        assert least_cosine(found, expected) >= COSINE
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    reports = read_manifest(bundle).parity["sessions"]
    assert all(report["embedding"]["least_cosine"] >= COSINE for report in reports.values())


@pytest.mark.long
def test_a_causal_encoder_and_its_last_token(
    save_sentence_model: Callable[..., Path], build_of: Callable[..., Path], tmp_path: Path
) -> None:
    encoder = save_causal_encoder(tmp_path / "causal")
    folder = save_sentence_model([st.Pooling(DIM, "lasttoken"), st.Normalize()], encoder)
    texts = texts_of_all_lengths()[:200]
    expected = judge(folder).encode(texts, show_progress_bar=False)
    with Engine.load(build_of(folder), precision="fp32") as engine:
        assert least_cosine(engine.embed(texts), expected) >= COSINE


@pytest.fixture(scope="module")
def normalized(save_sentence_model: Callable[..., Path]) -> Path:
    prompts = {"query": "search for: ", "passage": "a text: "}
    modules = [st.Pooling(DIM, "mean"), st.Normalize()]
    return save_sentence_model(modules, prompts=prompts, default_prompt_name="passage")


@pytest.fixture(scope="module")
def engine(normalized: Path, build_of: Callable[..., Path]) -> Any:
    with Engine.load(build_of(normalized), backend="onnxruntime") as engine:
        yield engine


@pytest.mark.parametrize("prompt", [{}, {"prompt_name": "query"}, {"prompt": "of my own: "}])
def test_prompts(engine: Engine, normalized: Path, prompt: dict[str, str]) -> None:
    texts = texts_of_all_lengths()[-60:]
    expected = judge(normalized).encode(texts, show_progress_bar=False, **prompt)
    assert least_cosine(engine.embed(texts, **prompt), expected) >= COSINE
    others = engine.embed(texts, prompt="")
    assert least_cosine(others, expected) < COSINE


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dim", [None, 24])
def test_cut_and_rounded(
    engine: Engine, normalized: Path, dim: int | None, normalize: bool
) -> None:
    texts, model = texts_of_all_lengths()[:50], judge(normalized)
    how: dict[str, Any] = {"truncate_dim": dim, "normalize_embeddings": normalize}
    expected = model.encode(texts, show_progress_bar=False, **how)
    found = engine.embed(texts, dim, normalize)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for precision in ("binary", "ubinary"):
        got = engine.embed(texts, dim, normalize, precision)
        np.testing.assert_array_equal(got, quantize_embeddings(found, precision))
    if normalize and dim:
        return
    ranges = np.stack([engine.embed(corpus()).min(axis=0), engine.embed(corpus()).max(axis=0)])
    for precision in ("int8", "uint8"):
        got = engine.embed(texts, dim, normalize, precision)
        expected = quantize_embeddings(found, precision, ranges[:, :dim])
        assert got.dtype == expected.dtype
        # The bundle's ranges are of the texts that it was built with, which are some of these.
        assert np.abs(got.astype(int) - expected).mean() < 32


def test_int8_is_by_the_ranges_of_the_bundle(
    build_of: Callable[..., Path], normalized: Path
) -> None:
    """Whatever else is asked for in the same call."""
    with Engine.load(build_of(normalized), backend="onnxruntime") as engine:
        texts = texts_of_all_lengths()[:30]
        together = engine.embed(texts, precision="int8")
        one_by_one = np.concatenate([engine.embed([text], precision="int8") for text in texts])
    np.testing.assert_array_equal(together, one_by_one)


def test_one_pass_gives_codes_and_embeddings(engine: Engine) -> None:
    """The same bits as each by itself, of each text in its place, of many chunks and of equal
    texts."""
    texts = texts_of_all_lengths() * 2
    features = engine.encode(texts, embeddings=True)
    assert features.embeddings is not None
    np.testing.assert_array_equal(features.embeddings, engine.embed(texts, prompt=""))
    np.testing.assert_array_equal(features.codes, engine.encode(texts).codes)
    chosen = features[[5, 3]]
    np.testing.assert_array_equal(chosen.embeddings, features.embeddings[[5, 3]])
    joined = type(features).concat([features[:2], features[7:9]])
    np.testing.assert_array_equal(joined.embeddings, features.embeddings[[0, 1, 7, 8]])
    assert type(features).concat([features[:2], engine.encode(["a"])]).embeddings is None


def test_no_texts(engine: Engine) -> None:
    assert engine.embed([]).shape == (0, DIM)
    assert engine.embed([], precision="ubinary").shape == (0, DIM // 8)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dim": 0}, "dim: got 0, expected 1 to 64"),
        ({"dim": 65}, "dim: got 65, expected 1 to 64"),
        ({"precision": "int4"}, "precision: got 'int4', expected one of"),
        ({"precision": "int8", "dim": 8, "normalize": True}, "whose length is changed"),
        ({"prompt_name": "answer"}, "got 'answer', expected one of"),
        ({"prompt_name": "query", "prompt": "x"}, "expected one of them"),
        ({"prompt": 5}, "prompt: got 5, expected a text"),
    ],
)
def test_what_cannot_be_given(engine: Engine, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine.embed(["a"], **asked)


def test_texts_in_windows_have_none(engine: Engine) -> None:
    with pytest.raises(InputError, match="expected 'cut'"):
        engine.encode(["a"], embeddings=True, long_texts="split")


def test_a_bundle_without(tiny_engine: Engine) -> None:
    assert tiny_engine.manifest.embedding is None
    with pytest.raises(InputError, match="this bundle gives none"):
        tiny_engine.embed(["a"])
    with pytest.raises(InputError, match="this bundle gives none"):
        tiny_engine.encode(["a"], embeddings=True)


def test_a_pooling_that_is_asked_for(build_bundle: BuildBundle) -> None:
    """Of a checkpoint that is transformers' alone."""
    bundle = build_bundle("bert", embedding="cls", precision="fp32")
    assert read_manifest(bundle).embedding == EmbeddingSpec(("cls",), (), DIM)
    with Engine.load(bundle, backend="onnxruntime") as engine:
        assert engine.embed(["a", "some words"]).shape == (2, DIM)
    with pytest.raises(ExportError, match="expected the last among them, 3"):
        build_bundle("bert", embedding="cls", layers="1,2")


def spoiled(folder: Path, file: str, content: Any) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(json.dumps(content), encoding="utf-8")


CNN = {"idx": 3, "name": "3", "path": "3_CNN", "type": "sentence_transformers.models.CNN"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling is"),
        ("1_Pooling/config.json", [1], "cannot be read"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "which is missing"),
        (
            "1_Pooling/config.json",
            {"pooling_mode": "mean", "include_prompt": False},
            "leaves out a prompt's tokens",
        ),
        ("modules.json", CNN, "has a CNN, which is not done here"),
        ("modules.json", {**CNN, "type": "st.Dense", "path": "../x"}, "expected one within"),
        ("modules.json", {**CNN, "type": "st.Dense", "path": "none"}, "cannot be read"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "not of the embed"),
    ],
)
def test_modules_that_are_not_done(
    normalized: Path, file: str, content: Any, message: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(normalized, tmp_path / "spoiled"))
    if file == "modules.json":
        (folder / "3_CNN").mkdir()
        (folder / "3_CNN" / "config.json").write_text("{}")
        content = [*json.loads((folder / file).read_text()), content]
    (folder / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ExportError, match=message):
        read_sentence_modules(find_checkpoint(str(folder)), DIM)


def test_a_build_goes_on_without(normalized: Path, few_texts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(normalized, tmp_path / "spoiled"))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "median"}')
    said: list[str] = []
    config = BuildConfig(encoder=str(folder), output=tmp_path / "bundle", calibration=few_texts)
    assert make_bundle(config, said.append).embedding is None
    assert any("no embedding" in line and "pooling is" in line for line in said), said


def test_old_names_of_poolings_and_pickled_weights(
    save_sentence_model: Callable[..., Path], build_of: Callable[..., Path], tmp_path: Path
) -> None:
    """As checkpoints of years ago have them."""
    folder = save_sentence_model(MODULES["dense"]())
    expected = judge(folder).encode(["some words"], show_progress_bar=False)
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    weights = folder / "2_Dense" / "model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with Engine.load(build_of(folder), precision="fp32") as engine:
        assert least_cosine(engine.embed(["some words"]), expected) >= COSINE


HOSTILE: dict[str, Callable[[dict[str, NDArray[Any]]], None]] = {
    "no ranges": lambda w: w.clear(),
    "ranges of others": lambda w: w.update({RANGES: np.zeros((2, 3), np.float32)}),
    "a weight of no step": lambda w: w.update({"0.weight": np.zeros((2, 3), np.float32)}),
    "float64": lambda w: w.update({RANGES: w[RANGES].astype(np.float64)}),
    "NaN": lambda w: w[RANGES].fill(np.nan),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_weights(
    name: str, build_of: Callable[..., Path], normalized: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    bundle = Path(shutil.copytree(build_of(normalized), tmp_path / "bundle"))
    weights = load_file(bundle / EMBEDDING)
    HOSTILE[name](weights)
    save_file(weights, bundle / EMBEDDING)
    manifest = read_manifest(bundle)
    artifacts = {**manifest.artifacts, EMBEDDING: Artifact.of(bundle / EMBEDDING)}
    object.__setattr__(manifest, "artifacts", artifacts)
    (bundle / MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    with pytest.raises(BundleError, match=r"embedding\.safetensors does not fit"):
        Engine.load(bundle, backend="onnxruntime")


@pytest.mark.parametrize(
    "step", [Step("dense"), Step("layer_norm"), Step("dense", residual=True)], ids=repr
)
def test_steps_without_weights(step: Step) -> None:
    ranges = {RANGES: np.zeros((2, DIM), np.float32)}
    with pytest.raises(ValueError, match="step 0 has no weights"):
        Embedder(EmbeddingSpec(("mean",), (step,), DIM), ranges).check(DIM)


def test_files_are_for_all_to_read(build_of: Callable[..., Path], normalized: Path) -> None:
    """A server is often somebody else than who built the bundle."""
    bundle = build_of(normalized, thresholds="mean")
    for path in bundle.iterdir():
        assert path.stat().st_mode & 0o044 == 0o044, path
