"""A prefix in both hosts: the same tokens, codes and answers, and the same refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from causal_encoder import save_causal_encoder
from marks import all_but_long
from test_encode import STRANGE_TEXTS
from test_host_agrees import assert_same_answers, assert_same_codes
from test_tokenizer import all_texts, wordy

from benchmarks.contenders.host_library import HostEngine, HostError, HostLibrary
from bitheads import BundleError, Engine, SpecMismatchError
from bitheads.engine.bundle import MANIFEST, read_manifest
from bitheads.engine.types import Text
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle

PREFIXES = {"bert": "query: ", "causal": "Instruct: D\u00e9j\u00e0 vu of the tide\nQuery:"}


@pytest.fixture(scope="module", params=all_but_long(PREFIXES, "bert"))
def bundle(
    request: pytest.FixtureRequest,
    build_bundle: Callable[..., Path],
    add_host_parts: Callable[[Path], Path],
    few_texts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    prefix = PREFIXES[request.param]
    if request.param == "bert":
        return add_host_parts(build_bundle("bert", prefix=prefix))
    folder = tmp_path_factory.mktemp("causal")
    source = save_causal_encoder(folder / "source")
    config = BuildConfig(str(source), prefix=prefix, calibration=few_texts, min_sign_agreement=0.99)
    make_bundle(replace(config, output=folder / "bundle"))
    return add_host_parts(folder / "bundle")


@pytest.fixture(scope="module")
def engines(bundle: Path, library: HostLibrary) -> tuple[Engine, HostEngine]:
    engine = Engine.load(bundle, backend="openvino", precision="fp32")
    return engine, HostEngine(library, bundle, precision="fp32")


def test_the_same_codes_and_answers(engines: tuple[Engine, HostEngine]) -> None:
    """Of all kinds of texts and pairs; heads on the first, the last, all tokens among them."""
    engine, host = engines
    rng = np.random.default_rng(5)
    texts = [
        *all_texts(),
        *STRANGE_TEXTS.values(),
        *[("", text) for text in STRANGE_TEXTS.values()],
    ]
    sizes = [*range(40, 64), 200, 3000]
    texts += [wordy(rng, size) for size in sizes]
    texts += [(wordy(rng, a), wordy(rng, b)) for a, b in [(9, 90), (90, 9), (50, 51), (0, 99)]]
    texts += ["x" * 5000, " " * 40_000 + "end", ("y" * 5000, "z"), " " * 400_000]
    assert_same_codes(host.encode(texts), engine.encode(texts))
    assert_same_answers(engine, host, texts)
    assert host.spec_id == engine.spec.id


def test_very_many_texts(engines: tuple[Engine, HostEngine]) -> None:
    """More than are tokenized together."""
    engine, host = engines
    texts: list[Text] = [("tide", "mud") if i % 7 == 0 else f"tide {i % 5}" for i in range(9000)]
    assert_same_codes(host.encode(texts), engine.encode(texts))


def set_spec(bundle: Path, **fields: object) -> None:
    """As a version that has such fields writes them."""
    path = bundle / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    content["spec"] |= fields
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": digest}), encoding="utf-8")


@pytest.mark.parametrize("prefix", ["tide " * 60, " " * 513, "\u00e9\n" * 100])
def test_a_prefix_that_leaves_no_room(
    own_host_bundle: Path, library: HostLibrary, prefix: str
) -> None:
    set_spec(own_host_bundle, prefix=prefix)
    with pytest.raises(BundleError, match="so that texts have room") as expected:
        Engine.load(own_host_bundle, backend="openvino")
    with pytest.raises(HostError) as got:
        HostEngine(library, own_host_bundle, precision="fp32")
    assert (got.value.status, str(got.value)) == ("bundle", str(expected.value))


def test_heads_of_other_prefixes(own_host_bundle: Path, library: HostLibrary) -> None:
    """Both name the two specs with their prefixes."""
    set_spec(own_host_bundle, prefix="\u00e9: ")
    with pytest.raises(SpecMismatchError, match=r'prefix "\\u00e9: ", dim') as expected:
        Engine.load(own_host_bundle, backend="openvino")
    with pytest.raises(HostError) as got:
        HostEngine(library, own_host_bundle, precision="fp32")
    assert (got.value.status, str(got.value)) == ("spec_mismatch", str(expected.value))


@pytest.mark.parametrize("fields", [{"suffix": "x"}, {"prefix": 1}, {"prefix": None}])
def test_fields_that_are_not_known(
    own_host_bundle: Path, library: HostLibrary, fields: dict[str, object]
) -> None:
    """Nothing in a spec is passed over, so no host encodes without what another one adds."""
    spec = read_manifest(own_host_bundle).spec
    set_spec(own_host_bundle, **fields)
    with pytest.raises(BundleError, match="feature spec"):
        Engine.load(own_host_bundle, backend="openvino")
    with pytest.raises(HostError) as got:
        HostEngine(library, own_host_bundle, precision="fp32")
    assert got.value.status == "bundle"
    assert "bundle.json is malformed" in str(got.value)
    # A field left out, and one too many, are as many as there should be.
    content = {**spec.to_json(), "suffix": "x"}
    del content["layer_weights"]
    path = own_host_bundle / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["spec"] = content
    path.write_text(json.dumps(manifest), encoding="utf-8")
    set_spec(own_host_bundle)
    with pytest.raises(HostError, match="suffix"):
        HostEngine(library, own_host_bundle, precision="fp32")
