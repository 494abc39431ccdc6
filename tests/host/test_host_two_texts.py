"""Heads of two texts in C++: the answers of Python, and of two plain heads with NumPy between them.

Such a head reads each text's codes by themselves; what its halves compute is what heads of single
texts compute, and how two vectors become one row of codes is written down here once more.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_build import run
from random_heads import random_two_texts_head
from same_answers import assert_same_answer, assert_same_bits
from test_encode import STRANGE_TEXTS, texts_of_all_lengths
from test_host_errors import refused
from test_tokenizer import all_texts, wordy

from benchmarks.contenders.host_library import HostEngine, HostLibrary, HostPrediction, HostTask
from bitheads import Decision, Engine, FeatureSpec, PackedFeatures, PositionPooling, Quantization
from bitheads.engine.bundle import MANIFEST, read_manifest
from bitheads.engine.heads.cpu import load_head, predict_heads
from bitheads.engine.heads.head import outputs_of
from bitheads.engine.heads.head_file import (
    MAX_VECTOR_SIZE,
    FoldedHead,
    PairHalf,
    write_head,
)
from bitheads.engine.kinds import KINDS, NO_DECISION
from bitheads.engine.types import Text

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """A head: its kind, how it pools positions, the numbers of a text's vector, its pair half's
    inner size."""

    kind: str
    pooling: PositionPooling
    vector: int
    inner: int
    decision: Decision = NO_DECISION
    labels: tuple[str, ...] = ("no", "perhaps", "yes")


REJECTS = {"reject_above": 0.5, "reject_scale": 0.7}
CASES = {
    "alike": Case("single_label", PositionPooling.ATTENTION, 64, 64),
    "begins": Case("single_label", PositionPooling.CLS, 7, 5, Decision(abstain_below=0.5)),
    "both": Case(
        "multi_label", PositionPooling.MEAN, 33, 130, Decision(thresholds=(-0.5, 0, 0.5), **REJECTS)
    ),
    "rated": Case("ordinal", PositionPooling.LAST, 300, 1, Decision(cuts=(-0.5, 0.5))),
    "scored": Case(
        "regression", PositionPooling.MEAN, 1, 9, Decision(value_range=(-1, 1), **REJECTS), ()
    ),
}
"""By task."""

WEIGHTS = ("dense", "dense_bias", "output", "output_bias")
JOINT = {"pairs", "first"}
SINGLE = {"attends", "averages", "last"}
"""Tasks of the other heads: of pairs that the encoder reads as one, and of single texts."""


def make_head(spec: FeatureSpec, task: str, case: Case, seed: int) -> FoldedHead:
    options = {"labels": case.labels, "kind": case.kind, "decision": case.decision}
    sizes = {"vector_size": case.vector, "inner": case.inner}
    return random_two_texts_head(spec, task, case.pooling, seed=seed, **sizes, **options)


def some_pairs() -> Pairs:
    """Of texts of all kinds and lengths, many of them in several pairs; equal ones; empty ones."""
    rng = np.random.default_rng(7)
    texts = [text for text in all_texts() if isinstance(text, str)]
    texts += [*texts_of_all_lengths(), *(wordy(rng, size) for size in (55, 60, 64, 70, 200, 3000))]
    rows = rng.integers(0, len(texts), (300, 2))
    pairs = [(texts[a], texts[b]) for a, b in rows]
    pairs += [(texts[3], text) for text in texts[:40]] + [(text, text) for text in texts[:10]]
    return pairs + [("", text) for text in STRANGE_TEXTS.values()] + [("", ""), ("x" * 5000, "y")]


def as_rows(pairs: Pairs) -> tuple[list[str], np.ndarray]:
    """The distinct texts as they come, and pairs of them, int64 [pairs, 2]."""
    texts = [*dict.fromkeys(text for pair in pairs for text in pair)]
    place = {text: row for row, text in enumerate(texts)}
    return texts, np.array([(place[a], place[b]) for a, b in pairs], np.int64).reshape(-1, 2)


BUNDLES: dict[str, dict[str, object]] = {
    "sign": {},
    "uint8": {"quantization": Quantization.UINT8},
    "prefix": {"prefix": "query: "},
}


@pytest.fixture(scope="module")
def make_bundle(
    build_bundle: Callable[..., Path], add_host_parts: Callable[[Path], Path]
) -> Callable[[str], Path]:
    """(one of BUNDLES) -> with a head of every case, and those of other forms."""

    def make(name: str) -> Path:
        bundle = add_host_parts(build_bundle("bert", **BUNDLES[name]))
        spec = read_manifest(bundle).spec
        for seed, (task, case) in enumerate(CASES.items()):
            write_head(
                make_head(spec, task, case, seed),
                bundle / "heads" / f"{task}.safetensors",
                "float16" if seed % 2 else "float32",
            )
        return bundle

    return make


@pytest.fixture(scope="module", params=BUNDLES)
def hosts(
    request: pytest.FixtureRequest, make_bundle: Callable[[str], Path], library: HostLibrary
) -> Iterator[tuple[Engine, HostEngine]]:
    bundle = make_bundle(request.param)
    with (
        Engine.load(bundle, "openvino", precision="fp32") as engine,
        HostEngine(library, bundle, "fp32") as host,
    ):
        yield engine, host


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[[str], Path]) -> Path:
    """Of signs; not to be written to."""
    return make_bundle("sign")


@pytest.fixture(scope="module")
def host(bundle: Path, library: HostLibrary) -> Iterator[HostEngine]:
    with HostEngine(library, bundle, "fp32") as host:
        yield host


def assert_equal_bits(
    got: dict[str, HostPrediction], expected: dict[str, HostPrediction], rows: slice | None = None
) -> None:
    assert set(got) == set(expected)
    for task, answer in got.items():
        chosen = slice(None) if rows is None else rows
        assert_same_bits(answer.logits, expected[task].logits[chosen])
        rejects = expected[task].reject_logits
        assert_same_bits(answer.reject_logits, None if rejects is None else rejects[chosen])


def test_python_gives_the_same_answers(hosts: tuple[Engine, HostEngine]) -> None:
    """To pairs of which other heads read both texts as one, and to stored texts.

    The same bits where the same texts go through the encoder together: a sum in another batch may
    end beside the middle between two codes of uint8.
    """
    engine, host = hosts
    pairs = some_pairs()
    got = {}
    for tasks in ([*CASES], [*JOINT]):
        expected, found = engine.predict(pairs, tasks), host.predict(pairs, tasks)
        assert set(found) == set(expected) == {*tasks}
        for task, answer in found.items():
            assert_same_answer(answer, expected[task])
            if task in JOINT or CASES[task].vector > 1:
                assert len(np.unique(answer.logits[:, 0])) > 100  # or it would not tell
        got |= found
    for together in (engine.predict(pairs), host.predict(pairs)):
        assert set(together) == set(got)
        for task, answer in together.items():
            off = np.abs(answer.logits - got[task].logits).max(axis=1)
            assert (off > 1e-4).mean() < 0.02
    texts, rows = as_rows(pairs)
    of_rows = engine.predict_pairs(engine.encode(texts), rows)
    assert_equal_bits(host.predict_pairs(texts, rows), {t: got[t] for t in CASES})
    assert set(of_rows) == set(CASES)
    for task, answer in of_rows.items():
        assert_same_answer(got[task], answer)


def test_the_answers_are_those_of_two_heads(hosts: tuple[Engine, HostEngine]) -> None:
    engine, host = hosts
    texts, rows = as_rows(some_pairs())
    features = engine.encode(texts)
    got = host.predict_pairs(texts, rows)
    for seed, (task, case) in enumerate(CASES.items()):
        head = make_head(features.spec, task, case, seed)
        if seed % 2:
            head = rounded_to_halves(head)
        outputs = answer_by_halves(head, features, rows)
        num_logits = KINDS[case.kind].num_logits(case.labels)
        assert_same_bits(got[task].logits, outputs[:, :num_logits])
        rejects = outputs[:, num_logits] if case.decision.reject_above is not None else None
        assert_same_bits(got[task].reject_logits, rejects)


def rounded_to_halves(head: FoldedHead) -> FoldedHead:
    """As a file of float16 weights has it."""
    assert head.pair is not None

    def rounded(name: str, part: FoldedHead | PairHalf) -> np.ndarray | None:
        array = getattr(part, name)
        return None if array is None else array.astype(np.float16).astype(np.float32)

    pair = PairHalf(**{name: rounded(name, head.pair) for name in WEIGHTS})
    own = {name: rounded(name, head) for name in ("query", "value", *WEIGHTS)}
    return replace(head, pair=pair, **own)


def answer_by_halves(head: FoldedHead, features: PackedFeatures, rows: np.ndarray) -> np.ndarray:
    """float32 [pairs, outputs], of heads of single texts alone."""
    assert head.pair is not None
    vectors = outputs_of_plain_head(features, head)
    codes = np.array([combined(vectors[a], vectors[b]) for a, b in rows])
    # What codes stand for is of no concern to a head.
    uint8 = {"quantization": Quantization.UINT8, "calibration_sha256": None, "prefix": ""}
    spec = replace(features.spec, dim=codes.shape[1], **uint8)
    features = PackedFeatures(codes, np.arange(len(codes) + 1), spec)
    weights = {name: getattr(head.pair, name) for name in WEIGHTS}
    pooling = {"position_pooling": PositionPooling.CLS, "query": None, "value": None}
    return outputs_of_plain_head(features, head, spec=spec, **pooling, **weights)


def outputs_of_plain_head(features: PackedFeatures, head: FoldedHead, **changes: Any) -> np.ndarray:
    """Of one for single texts, with as many yes-or-no labels as it has outputs."""
    count = len(changes.get("output_bias", head.output_bias))
    labels = tuple(f"{i}" for i in range(count))
    decision = Decision(thresholds=(0.0,) * count)
    plain = {"form": "single", "pair": None, "kind": "multi_label"}
    head = replace(head, labels=labels, decision=decision, **plain, **changes)
    return outputs_of(predict_heads(features, [load_head(head)])[head.task])


def combined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A pair's codes, uint8 [4 size + 2], from two float32 [size]."""
    one = np.float32(1)

    def fixed(vector: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
        largest = float(np.abs(vector).max())
        shift = 0 if largest == 0 else min(13 - int(np.frexp(largest)[1]), 100)
        whole = np.rint(np.ldexp(vector.astype(np.float64), shift)).astype(np.int64)
        squares = int(whole @ whole)
        mean = np.float32(squares) / np.float32(len(vector))
        gain = one / np.sqrt(mean) if squares else np.float32(0)
        return whole, squares, whole.astype(np.float32) * gain

    (a, a_squares, u), (b, b_squares, w) = fixed(first), fixed(second)
    cosine = 0.0
    if a_squares and b_squares:
        cosine = float(a @ b) / float(np.sqrt(float(a_squares) * float(b_squares)))
    step = min(max(round((cosine + 1) * 32767.5), 0), 65535)
    parts = [
        np.rint(u * np.float32(32)) + 128,
        np.rint(w * np.float32(32)) + 128,
        np.rint(np.abs(u - w) * np.float32(32)),
        np.rint((u * w) * np.float32(8)) + 128,
        np.array([step // 256, step % 256], np.float32),
    ]
    return np.clip(np.concatenate(parts), 0, 255).astype(np.uint8)


def test_a_pair_alone_has_the_answer_it_has_in_a_batch(host: HostEngine) -> None:
    pairs = some_pairs()
    together = host.predict(pairs)
    for i in range(0, len(pairs), 9):
        assert_equal_bits(host.predict([pairs[i]]), together, slice(i, i + 1))


def test_any_number_of_threads_pairs_and_texts(
    bundle: Path, library: HostLibrary, host: HostEngine
) -> None:
    """Also texts that no pair asks for, and those that are asked for in another order."""
    pairs = some_pairs()
    texts, rows = as_rows(pairs)
    expected = host.predict_pairs(texts, rows, list(CASES))
    with HostEngine(library, bundle, "fp32", threads=3) as threaded:
        for count in (1, 2, 59, 60, 61, 179, 181, 240, 241, len(rows)):
            got = threaded.predict_pairs(texts, rows[:count], list(CASES))
            assert_equal_bits(got, expected, slice(0, count))
    many = np.tile(rows, (9, 1))
    of_many = host.predict_pairs(texts, many)
    for start in range(0, len(many), len(rows)):
        part = slice(start, start + len(rows))
        for task, answer in of_many.items():
            assert_same_bits(answer.logits[part], expected[task].logits)
    few = host.predict_pairs([texts[i] for i in (9, 4, 2)], [(2, 0)])
    assert_equal_bits(few, host.predict([(texts[2], texts[9])], list(CASES)))


def test_vectors_as_large_as_they_may_be(
    bundle: Path, library: HostLibrary, tmp_path: Path
) -> None:
    """More of them than are kept at a time."""
    texts, rows = as_rows(some_pairs())
    tasks = [f"large-{seed}" for seed in range(4)]
    with (
        Engine.load(bundle, "openvino", precision="fp32") as engine,
        HostEngine(library, bundle, "fp32") as host,
    ):
        for seed, task in enumerate(tasks):
            case = Case("single_label", PositionPooling.MEAN, MAX_VECTOR_SIZE, 2)
            path = tmp_path / f"{task}.safetensors"
            write_head(make_head(engine.spec, task, case, seed), path)
            host.add_head(path)
        engine.add_head(tmp_path / "large-3.safetensors")
        assert len(texts) * MAX_VECTOR_SIZE * 4 * len(tasks) > 64 << 20
        together = host.predict_pairs(texts, rows, [*tasks, "alike"])
        for task in (*tasks, "alike"):
            assert_equal_bits(host.predict_pairs(texts, rows, [task]), {task: together[task]})
        expected = engine.predict_pairs(engine.encode(texts), rows, ["large-3"])
        assert_same_answer(together["large-3"], expected["large-3"])


def test_candidates_of_one_text(host: HostEngine) -> None:
    texts = texts_of_all_lengths()
    pairs = [(0, i) for i in range(1, len(texts))]
    got = host.predict_pairs(texts, pairs, ["alike"])
    assert_equal_bits(got, host.predict([(texts[0], text) for text in texts[1:]], ["alike"]))


def test_the_order_of_a_pair_matters(host: HostEngine) -> None:
    one, other = texts_of_all_lengths()[:2]
    there, back = (host.predict([pair])["alike"].logits for pair in ((one, other), (other, one)))
    assert not np.array_equal(there, back)


def test_an_encoder_that_reads_no_pairs(bundle: Path, library: HostLibrary, tmp_path: Path) -> None:
    """Its pairs are answered as long as no head wants both texts as one."""
    own = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    for task in JOINT:
        (own / "heads" / f"{task}.safetensors").unlink()
    manifest = read_manifest(own)
    one_type = replace(manifest, encoder=replace(manifest.encoder, token_types=1))
    (own / MANIFEST).write_text(one_type.dumps(), encoding="utf-8")
    pairs = some_pairs()[:50]
    with HostEngine(library, bundle, "fp32") as host:
        expected = host.predict(pairs, list(CASES))
    with HostEngine(library, own, "fp32") as host:
        assert_equal_bits(host.predict(pairs), expected)
        with refused("invalid_input", "reads single texts only"):
            host.encode(pairs)


def test_nothing_is_answered_by_nobody(host: HostEngine) -> None:
    for answers in (host.predict_pairs(["a"], []), host.predict_pairs([], [])):
        assert set(answers) == set(CASES)
        assert all(answer.logits.size == 0 for answer in answers.values())


def test_what_is_known_of_a_head(host: HostEngine) -> None:
    for task, case in CASES.items():
        can_refuse = (
            case.decision.reject_above is not None or case.decision.abstain_below is not None
        )
        assert host.task_infos[task] == HostTask("two_texts", case.kind, can_refuse)
    assert host.tasks["pairs"] == "pair"
    assert host.tasks["attends"] == "single"


def test_which_heads_answer(host: HostEngine) -> None:
    pair: Text = ("one", "other")
    assert set(host.predict([pair])) == {*CASES, *JOINT}
    assert set(host.predict(["one"])) == SINGLE
    assert list(host.predict([pair], ["pairs", "alike", "first"])) == ["pairs", "alike", "first"]
    assert list(host.predict([pair], ["both", "pairs", "both"])) == ["both", "pairs"]
    assert list(host.predict_pairs(["one"], [(0, 0)], ["both", "alike"])) == ["both", "alike"]
    assert set(host.predict_encoded([pair])) == JOINT
    assert set(host.predict_encoded(["one"])) == SINGLE
    one = host.encode(["one"])
    assert set(host.predict_features(one.codes, one.offsets)) == SINGLE | JOINT


def test_heads_that_do_not_fit(host: HostEngine) -> None:
    with refused("invalid_input", "task 'alike'", "answers pairs", "text 0 is a single text"):
        host.predict(["one"], ["alike"])
    for texts in (["one"], [("one", "other")]):
        with refused("invalid_input", "task 'alike'", "two_texts", "predict_pairs"):
            host.predict_encoded(texts, ["alike"])
    for task in ("pairs", "attends"):
        with refused("invalid_input", f"task '{task}'", "expected two_texts", "predict_features"):
            host.predict_pairs(["one", "other"], [(0, 1)], ["alike", task])
    with refused("unknown_task", "'nothing'"):
        host.predict_pairs(["one"], [(0, 0)], ["nothing"])


@pytest.mark.parametrize("row", [-1, 2, 2**40, -(2**63)])
def test_rows_that_are_not_there(host: HostEngine, row: int) -> None:
    for pair in ((0, row), (row, 1)):
        with refused("invalid_input", f"pair 1: got the row {row} of features of 2 texts"):
            host.predict_pairs(["one", "other"], [(0, 1), pair])
    with refused("invalid_input", "pair 0: got the row 0 of features of 0 texts"):
        host.predict_pairs([], [(0, 0)])


def test_rows_that_were_pairs(host: HostEngine) -> None:
    texts = ["one", ("one", "other"), "three"]
    assert len(host.predict_pairs(texts, [(0, 2)])["alike"].best) == 1
    with refused("invalid_input", "pair 1: got the row 1", "encoded as a pair", "by itself"):
        host.predict_pairs(texts, [(0, 2), (2, 1)])


def test_texts_have_the_numbers_that_they_were_given(host: HostEngine) -> None:
    """Though each different text is encoded once."""
    with refused("invalid_input", "text 2: byte 1", "expected UTF-8"):
        host.predict([("a", "b"), ("a", "a"), ("b", b"a\xff")], ["alike"])


def test_the_example_compares_one_text_with_others(
    host_build: Path, bundle: Path, library: HostLibrary
) -> None:
    texts = texts_of_all_lengths()[:12]
    shown = run(host_build / "compare", bundle, "alike", *texts)
    with HostEngine(library, bundle) as host:
        pairs = [(0, i) for i in range(1, len(texts))]
        labels = host.predict_pairs(texts, pairs, ["alike"])["alike"].top
    expected = [f"{label}: {text}\n" for label, text in zip(labels, texts[1:], strict=True)]
    assert shown == "".join(expected)


def test_the_command_line_answers_pairs(host_build: Path, bundle: Path, host: HostEngine) -> None:
    shown = run(
        host_build / "predict_lines",
        bundle,
        *("--tasks", "alike,attends", "--precision", "fp32"),
        stdin="one\tother\nalone\n",
    )
    label = host.predict([("one", "other")])["alike"].top[0]
    first, second = shown.splitlines()
    assert f'"alike": {{"label": "{label}"' in first
    assert "alike" not in second
    assert "attends" in second
