"""Errors say what, got, expected and the fix; hostile files are refused; heads come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile_bundles import HOSTILE_BUNDLES, spoil
from hostile_heads import HOSTILE_HEADS, SOUND_HEADS, write_hostile_head
from random_heads import random_head
from same_answers import assert_same_answer
from test_encode import texts_of_all_lengths

from benchmarks.contenders.host_library import HostEngine, HostError, HostLibrary
from bitheads.engine import Engine, HeadError, bundle
from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.types import Text


@pytest.fixture
def load(library: HostLibrary) -> Callable[..., HostEngine]:
    return lambda folder, **options: HostEngine(library, folder, "fp32", **options)


@pytest.fixture(scope="module")
def python_engine(host_bundle: Path) -> Iterator[Engine]:
    with Engine.load(host_bundle, "openvino", precision="fp32") as engine:
        yield engine


@contextmanager
def refused(status: str, *words: str) -> Iterator[None]:
    with pytest.raises(HostError) as caught:
        yield
    assert caught.value.status == status, caught.value
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["bundle.json", "encoder.onnx", "tokenizer.json"])
def test_a_bundle_without_a_file(
    own_host_bundle: Path, load: Callable[..., HostEngine], name: str
) -> None:
    (own_host_bundle / name).unlink()
    with refused("bundle", name):
        load(own_host_bundle)


def test_an_edited_manifest(own_host_bundle: Path, load: Callable[..., HostEngine]) -> None:
    path = own_host_bundle / bundle.MANIFEST
    path.write_text(path.read_text().replace('"max_length": 64', '"max_length": 65'))
    with refused("bundle", "was edited", "Export the bundle again"):
        load(own_host_bundle)


def test_a_pair_where_the_encoder_has_one_token_type(
    own_host_bundle: Path, load: Callable[..., HostEngine]
) -> None:
    """As in Python: single texts are read."""
    manifest = read_manifest(own_host_bundle)
    one_type = replace(manifest, encoder=replace(manifest.encoder, token_types=1))
    (own_host_bundle / bundle.MANIFEST).write_text(one_type.dumps(), encoding="utf-8")
    engine = load(own_host_bundle)
    assert engine.encode(["a text"]).codes.shape[0] > 2
    with refused("invalid_input", "text 1: got a pair", "reads single texts only"):
        engine.encode(["a text", ("one", "two")])


@pytest.mark.parametrize("values", [{"pad_id": 10**6}, {"vocabulary": 0}, {"token_types": 0}])
def test_numbers_of_tokens_that_make_no_sense(
    own_host_bundle: Path, load: Callable[..., HostEngine], values: dict[str, int]
) -> None:
    path = own_host_bundle / bundle.MANIFEST
    manifest = read_manifest(own_host_bundle)
    changed = replace(manifest, encoder=replace(manifest.encoder, **values))
    path.write_text(changed.dumps(), encoding="utf-8")
    with refused("bundle", "bundle.json is malformed"):
        load(own_host_bundle)


@pytest.mark.parametrize("version", [2, "1", None])
def test_another_format_version(
    own_host_bundle: Path, load: Callable[..., HostEngine], version: object
) -> None:
    path = own_host_bundle / bundle.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version}))
    with refused("bundle", "bundle.json"):
        load(own_host_bundle)


def test_a_changed_graph_is_found_unless_verify_is_off(
    own_host_bundle: Path, load: Callable[..., HostEngine]
) -> None:
    with (own_host_bundle / "encoder.onnx").open("ab") as file:
        file.write(b"\0")
    with refused("bundle", "encoder.onnx was changed"):
        load(own_host_bundle)
    with refused("backend", "encoder.onnx", "Export the bundle again"):
        (own_host_bundle / "encoder.onnx").write_bytes(b"no graph")
        load(own_host_bundle, verify=False)


@pytest.mark.parametrize("name", ["tokenizer.xml", "tokenizer.bin", "tokenizer_graph.json"])
def test_a_changed_tokenizer_graph(
    own_host_bundle: Path, load: Callable[..., HostEngine], name: str
) -> None:
    path = own_host_bundle / "host" / name
    path.write_bytes(path.read_bytes()[:-20] + b"0" * 20)
    with refused("bundle", name, "bitheads host-tokenizer"):
        load(own_host_bundle)


def test_no_tokenizer_graph(own_host_bundle: Path, load: Callable[..., HostEngine]) -> None:
    """Token ids need none."""
    (own_host_bundle / "host" / "tokenizer_graph.json").unlink()
    with load(own_host_bundle) as host:
        assert host.encode_tokens([[2, 5, 3]]).offsets.tolist() == [0, 3]
        with refused("backend", "bitheads host-tokenizer --bundle"):
            host.encode(["text"])


def test_no_tokenizers_library(own_host_bundle: Path, load: Callable[..., HostEngine]) -> None:
    with (
        load(own_host_bundle, tokenizers_library="/no/such.so") as host,
        refused("backend", "/no/such.so", "BITHEADS_TOKENIZERS_LIBRARY"),
    ):
        host.encode(["text"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": -1}, "threads"),
        ({"max_batch_tokens": -5}, "tokens a batch"),
    ],
)
def test_wrong_options(
    host_bundle: Path, load: Callable[..., HostEngine], options: dict[str, int], words: str
) -> None:
    with refused("invalid_input", words):
        load(host_bundle, **options)


def test_wrong_precisions(library: HostLibrary, host_bundle: Path) -> None:
    with refused("invalid_input", "'fp7'", "expected auto"):
        HostEngine(library, host_bundle, precision="fp7")
    with refused("backend", "encoder_int8.xml", "--precision int8"):
        HostEngine(library, host_bundle, precision="int8")


def test_texts_that_are_not_utf8(host_engine: HostEngine) -> None:
    for broken in (b"a\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\x80"):
        with refused("invalid_input", "text 1", "expected UTF-8"):
            host_engine.encode(["fine", (b"first", broken)])


@pytest.mark.parametrize("ids", [[], [2] * 65, [-1], [2, 1_000_000_000, 3], [2, 1200]])
def test_token_ids_the_graph_does_not_have(host_engine: HostEngine, ids: list[int]) -> None:
    with refused("invalid_input", "text 1: got"):
        host_engine.encode_tokens([[2, 3], ids])


def test_an_unknown_task(host_engine: HostEngine) -> None:
    with refused("unknown_task", "'nothing'", "attends, averages, first, last, pairs"):
        host_engine.predict(["text"], ["nothing"])
    with refused("unknown_task", "'nothing'"):
        host_engine.remove_head("nothing")


def test_features_that_do_not_fit(host_engine: HostEngine) -> None:
    codes, offsets = np.zeros((4, 8), np.uint8), np.array([0, 4])
    with refused("spec_mismatch", "feature spec 0000"):
        host_engine.predict_features(codes, offsets, spec_id="0000")
    with refused("invalid_input", "of 9 bytes"):
        host_engine.predict_features(np.zeros((4, 9), np.uint8), offsets)
    with refused("invalid_input", "0 tokens"):
        host_engine.predict_features(codes, np.array([0, 4, 4]))
    for wrong in ([1, 4], [0, 4, 3]):
        with refused("invalid_input", "offsets"):
            host_engine.predict_features(codes, np.array(wrong))


@pytest.mark.parametrize("name", HOSTILE_BUNDLES)
def test_hostile_bundles(own_host_bundle: Path, load: Callable[..., HostEngine], name: str) -> None:
    """As Python refuses them, in tests/engine/test_load.py."""
    spoil(own_host_bundle, name)
    with refused("bundle", "xport"):
        load(own_host_bundle)


@pytest.mark.parametrize("name", HOSTILE_HEADS)
def test_hostile_heads(
    host_engine: HostEngine, python_engine: Engine, host_bundle: Path, tmp_path: Path, name: str
) -> None:
    """Refused by both hosts."""
    path = tmp_path / "hostile.safetensors"
    write_hostile_head(name, read_manifest(host_bundle).spec, path)
    with refused("head", "hostile.safetensors"):
        host_engine.add_head(path)
    with pytest.raises(HeadError, match=r"hostile"):
        python_engine.add_head(path)


@pytest.mark.parametrize("name", SOUND_HEADS)
def test_odd_heads_that_are_sound(
    host_engine: HostEngine, python_engine: Engine, host_bundle: Path, tmp_path: Path, name: str
) -> None:
    """Taken by both hosts, and to the same answers."""
    path = tmp_path / "odd.safetensors"
    write_hostile_head(name, read_manifest(host_bundle).spec, path)
    host_engine.add_head(path)
    try:
        python_engine.add_head(path)
        is_single = host_engine.tasks["hostile"] == "single"
        texts: list[Text] = ["A text."] if is_single else [("A text.", "Another.")]
        asked = host_engine.predict(texts, ["hostile"])["hostile"]
        expected = python_engine.predict(texts, ["hostile"])["hostile"]
        assert_same_answer(asked, expected)
    finally:
        host_engine.remove_head("hostile")
        python_engine.remove_head("hostile")


def test_a_head_of_another_spec(host_engine: HostEngine, host_bundle: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    spec = replace(read_manifest(host_bundle).spec, encoder="another")
    path = tmp_path / "other.safetensors"
    write_head(random_head(spec, "other"), path)
    with refused("spec_mismatch", "another", spec.id, host_engine.spec_id):
        host_engine.add_head(path)


def test_heads_come_and_go_while_others_predict(
    own_host_bundle: Path, load: Callable[..., HostEngine], tmp_path: Path
) -> None:
    """Every answer is that of the head that was there, whole."""
    spec = read_manifest(own_host_bundle).spec
    paths, answers = [], []
    texts = texts_of_all_lengths()[:20]
    with load(own_host_bundle, threads=2) as host:
        for seed in (10, 11):
            paths.append(tmp_path / f"{seed}.safetensors")
            write_head(random_head(spec, "moving", seed=seed), paths[-1])
            host.add_head(paths[-1])
            answers.append(host.predict(texts, ["moving"])["moving"].logits)
            host.remove_head("moving")
        assert not np.array_equal(*answers)
        host.add_head(paths[0])
        with refused("head", "loaded already", "replace"):
            host.add_head(paths[1])
        done = threading.Event()
        failures: list[object] = []

        def predict() -> None:
            while not done.is_set():
                try:
                    found = host.predict(texts)
                    if "moving" in found and not any(
                        np.array_equal(found["moving"].logits, answer) for answer in answers
                    ):
                        failures.append("an answer of no head")
                except Exception as error:
                    failures.append(error)
                    return

        threads = [threading.Thread(target=predict) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(60):
            host.add_head(paths[turn % 2], replace=True)
            if turn % 3 == 0:
                host.remove_head("moving")
        done.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert set(host.tasks) - {"moving"} == {"attends", "averages", "first", "last", "pairs"}


CHILD = """
import signal, sys
from pathlib import Path
from benchmarks.contenders.host_library import HostEngine, HostLibrary

library = HostLibrary(Path(sys.argv[1]))
for engine in [HostEngine(library, Path(sys.argv[2]), threads=1) for _ in range(2)]:
    with engine:
        pass
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_engines_that_are_gone(host_build: Path, host_bundle: Path) -> None:
    """It was a segfault once the first of two was gone before the second."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(host_build / "libbitheads.so"), str(host_bundle)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
