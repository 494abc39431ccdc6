"""Heads of the kind `token_label` in both hosts: the same spans, in code points and in bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from causal_encoder import save_causal_encoder
from host_build import run
from random_heads import random_head, random_span_head
from same_answers import assert_same_answer
from test_encode import texts_of_all_lengths
from test_host_errors import refused
from test_tokenizer import STRANGE_TEXTS, wordy

from benchmarks.contenders.host_library import HostEngine, HostLibrary
from bitheads import Engine, PackedFeatures, PositionPooling, Quantization
from bitheads.engine.answer_parts import json_answers
from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.cpu import load_head, predict_heads
from bitheads.engine.heads.head_file import FoldedHead, write_head
from bitheads.engine.types import Text
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.export.texts import read_texts

ODD = [
    "Otto Hahn went to Göttingen (1944), didn't he?",
    "😀😀 Lise\tMeitner\u00a0in 東京都、日本 ... e\u0301te\u0301!",
    "a-b.c@d.org -- +49 (0)30/1234-5 \x07\u200d\n\n\u3000no",
    "",
    " \t ",
    "e\u0301",
]
BUNDLES = ("sign", "uint8", "prefix", "causal")


def texts() -> list[Text]:
    rng = np.random.default_rng(4)
    single = [text for text in texts_of_all_lengths() if isinstance(text, str)]
    words = [wordy(rng, size) for size in (1, 2, 3, 30, 60, 90, 400)]
    return [*ODD, *single, *STRANGE_TEXTS.values(), *words, *read_texts(None)[:60]]


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(
    request: pytest.FixtureRequest,
    build_bundle: Callable[..., Path],
    add_host_parts: Callable[[Path], Path],
    few_texts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """With heads of each pooling, beside those that answer texts; not to be written to."""
    if request.param == "causal":
        folder = tmp_path_factory.mktemp("causal")
        source = str(save_causal_encoder(folder / "source"))
        config = BuildConfig(source, prefix="Find:\nwhat", calibration=few_texts)
        make_bundle(replace(config, output=folder / "bundle", min_sign_agreement=0.99))
        made = add_host_parts(folder / "bundle")
    elif request.param == "prefix":
        made = add_host_parts(build_bundle("bert", prefix="query: "))
    else:
        made = add_host_parts(build_bundle("bert", quantization=Quantization(request.param)))
    with Engine.load(made, "openvino", precision="fp32") as engine:
        features = engine.encode(texts(), words=True)
    for head in span_heads(features):
        write_head(head, made / "heads" / f"{head.task}.safetensors")
    return made


def span_heads(features: PackedFeatures) -> Iterator[FoldedHead]:
    """To which no tag is that of all words."""
    spec = features.spec
    heads = [
        random_span_head(spec, f"names-{pooling.value}", pooling=pooling, seed=seed)
        for seed, pooling in enumerate(PositionPooling)
    ]
    heads.append(random_span_head(spec, "many", labels=tuple(f"label {i}" for i in range(40))))
    for head in heads:
        logits = predict_heads(features, [load_head(head)])[head.task].logits
        yield replace(head, output_bias=head.output_bias - logits.mean(axis=0))


SPAN_TASKS = {"many", *(f"names-{pooling.value}" for pooling in PositionPooling)}


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return Engine.load(bundle, "openvino", precision="fp32")


@pytest.fixture(scope="module")
def host(bundle: Path, library: HostLibrary) -> HostEngine:
    return HostEngine(library, bundle, "fp32")


def test_the_same_spans(engine: Engine, host: HostEngine) -> None:
    asked = texts()
    expected = engine.predict(asked)
    got = host.predict(asked)
    assert set(got) == set(expected) > SPAN_TASKS
    of_several_words = 0
    for task in SPAN_TASKS:
        assert_same_answer(got[task], expected[task])
        spans = [(i, span) for i, found in enumerate(expected[task].spans) for span in found]
        of_several_words += sum(" " in str(asked[i])[s.start : s.end] for i, s in spans)
        assert len(spans) > 300
        # Which ones, and whether all, depends on the encoder's vocabulary.
        assert len({span.label for _, span in spans}) >= 0.75 * len(expected[task].labels)
    assert of_several_words > 100
    assert any(at is not None for at in expected["many"].truncated_at)


def test_places_in_code_points_and_in_bytes(host: HostEngine) -> None:
    asked = texts()
    answer = host.predict(asked, ["many"])["many"]
    assert answer.spans is not None
    assert answer.truncated_at is not None
    assert answer.truncated_at_byte is not None
    cuts = zip(asked, answer.truncated_at, answer.truncated_at_byte, strict=True)
    for text, at, byte in cuts:
        assert byte == (-1 if at < 0 else len(str(text)[:at].encode()))
    for text, spans in zip(asked, answer.spans, strict=True):
        for span in spans:
            part = str(text)[span.start : span.end]
            assert str(text).encode()[span.start_byte : span.end_byte].decode() == part != ""
    assert sum(map(len, answer.spans)) > 500


def test_kept_codes_have_the_same_answers(engine: Engine, host: HostEngine) -> None:
    """Of those with words; of others a head of words has nothing to say."""
    asked = texts()[:40]
    expected = engine.predict(asked)
    got = host.predict_encoded(asked)
    assert set(got) == set(expected)
    for task in got:
        assert_same_answer(got[task], expected[task])
    assert set(host.predict_encoded(asked, words=False)) == set(expected) - SPAN_TASKS
    with refused("invalid_input", "features: got none of words, expected them for the task 'many'"):
        host.predict_encoded(asked, ["many"], words=False)
    features = engine.encode(asked)
    assert set(host.predict_features(features.codes, features.offsets)) == set(host.tasks) - (
        SPAN_TASKS
    )


def test_a_text_alone_has_the_spans_it_has_in_a_batch(host: HostEngine) -> None:
    """If it has the codes that it has there: a code may be the next one in a batch of other sizes,
    which is for the encoder's library to say."""
    asked = texts()
    together = host.predict(asked, ["names-mean"])["names-mean"].spans
    features = host.encode(asked)
    assert together is not None
    of_the_same_codes = 0
    for i in range(0, len(asked), 3):
        here = features.codes[features.offsets[i] : features.offsets[i + 1]]
        if not np.array_equal(host.encode([asked[i]]).codes, here):
            continue
        alone = host.predict([asked[i]], ["names-mean"])["names-mean"].spans
        assert alone == together[i : i + 1]
        of_the_same_codes += any(map(len, together[i : i + 1]))
    assert of_the_same_codes > 3


def test_texts_and_pairs(host: HostEngine) -> None:
    with refused("invalid_input", "task 'many'", "answers single texts", "text 0 is a pair"):
        host.predict([("a pair", "of texts")], ["many"])
    assert not set(host.predict([("a pair", "of texts")])) & SPAN_TASKS
    none = host.predict([], ["many"])["many"]
    assert (none.spans, none.logits.shape) == ((), (0, 81))
    features = host.encode(["one", ("a pair", "of texts")], words=True)
    assert len(features.offsets) == 3


def test_the_order_of_tasks_is_kept(host: HostEngine) -> None:
    asked = ["many", "attends", "names-cls", "averages"]
    assert list(host.predict(["a text of words"], asked)) == asked


def test_the_command_line_shows_spans(host_build: Path, bundle: Path, engine: Engine) -> None:
    asked = [t for t in texts() if isinstance(t, str) and t.strip() and not {*"\n\t\r\0"} & {*t}]
    command = (host_build / "predict_lines", bundle, "--precision", "fp32", "--tasks", "many")
    shown = [json.loads(line) for line in run(*command, stdin="\n".join(asked)).splitlines()]
    assert [answer["text"] for answer in shown] == asked
    expected = json_answers(engine.predict(asked, ["many"])["many"])
    for answer, said in zip(shown, expected, strict=True):
        got = answer["tasks"]["many"]
        assert said is not None
        for ours, theirs in zip(got["spans"], said["spans"], strict=True):
            assert list(ours) == list(theirs)
            assert ours == {
                **theirs,
                "probability": pytest.approx(theirs["probability"], abs=2e-6),
            }
        assert {**got, "spans": []} == {**said, "spans": []}
    assert any("truncated_at" in answer["tasks"]["many"] for answer in shown)


def test_a_program_in_cpp(in_a_program: Path, bundle: Path, engine: Engine) -> None:
    text = "Otto Hahn went to Göttingen 😀, and to Bonn by e\u0301te\u0301."
    lines = run(in_a_program, "spans", bundle, "names-mean", text).splitlines()
    expected = engine.predict([text], ["names-mean"])["names-mean"]
    spans = [f"{s.start} {s.end} {s.label} {text[s.start : s.end]}" for s in expected.spans[0]]
    assert len(spans) > 1
    assert lines[: len(spans)] == spans
    top, outside, none_of_theirs, one_less, other_texts = lines[len(spans) + 4 :]
    assert lines[len(spans) : len(spans) + 4] == [
        "whole",
        f"{len(expected.selected[0])} labels, 1 texts",
        "no more",
        "accepted",
    ]
    assert top.startswith("status 1: task 'names-mean': got a call of top, but its token_label")
    assert outside == "Prediction::spans: no such text"
    wrong = "status 1: features: got words whose tokens are none of their text's. Encode it again."
    assert (none_of_theirs, one_less) == (wrong, wrong)
    assert other_texts.startswith("status 1: features: got the words of 1 texts, expected those of")


@pytest.mark.parametrize("wrong", ["form", "decision"])
def test_a_head_file_that_no_host_reads(
    host_engine: HostEngine, host_bundle: Path, tmp_path: Path, wrong: str
) -> None:
    """Written by hand: Python writes none."""
    from hostile_heads import head_bytes

    head = random_span_head(read_manifest(host_bundle).spec)
    decision = {"reject_above": 0.5, "reject_scale": 1.0} if wrong == "decision" else {}
    meta = {
        "format_version": 2,
        "kind": head.kind,
        "decision": decision,
        "task": head.task,
        "labels": list(head.labels),
        "form": "pair" if wrong == "form" else "single",
        "position_pooling": head.position_pooling.value,
        "spec": head.spec.to_json(),
        "metrics": {},
        "training": {},
    }
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(head_bytes(meta, dict(head.tensors)))
    with refused("head", "form is 'pair'" if wrong == "form" else "has a reject output"):
        host_engine.add_head(path)


def test_a_graph_that_was_written_without_what_words_take(
    own_host_bundle: Path, library: HostLibrary
) -> None:
    """By an earlier version: heads of texts answer as they did."""
    path = own_host_bundle / "host" / "tokenizer_graph.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"], content["blanks"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": digest}), encoding="utf-8")
    spec = read_manifest(own_host_bundle).spec
    write_head(random_head(spec, "tone"), own_host_bundle / "heads" / "tone.safetensors")
    write_head(random_span_head(spec), own_host_bundle / "heads" / "names.safetensors")
    with HostEngine(library, own_host_bundle, "fp32") as host:
        assert set(host.predict(["a text"], ["tone"])) == {"tone"}
        with refused("bundle", "without what finding words takes", "bitheads host-tokenizer"):
            host.predict(["a text"], ["names"])
