"""Heads of every kind, that refuse and that do not, in both hosts: the same answers.

Decisions lie where they are hard: a threshold is the very logit of one of the texts, a least
probability the very one that Python computes, so that a rounding more would tell on a text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_build import run
from random_heads import random_head
from same_answers import assert_same_answer
from test_encode import texts_of_all_lengths
from test_tokenizer import wordy

from benchmarks.contenders.host_library import HostEngine, HostLibrary, HostTask
from bitheads import (
    Decision,
    Engine,
    FeatureSpec,
    PackedFeatures,
    PositionPooling,
    Quantization,
)
from bitheads.engine.answer_parts import json_answers
from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.cpu import load_head, predict_heads
from bitheads.engine.heads.head import outputs_of
from bitheads.engine.heads.head_file import FoldedHead, write_head
from bitheads.engine.kinds import KINDS
from bitheads.engine.types import Text

WORDS = ("bad", "so-so", "good", "great")
NUMBERS = ("-1.5", "0", "2", "10.25")
REFUSALS = ("", "rejects", "abstains", "rejects and abstains")


@dataclass(frozen=True)
class Case:
    """A head: of a kind, with labels, which refuses in some way."""

    kind: str
    labels: tuple[str, ...]
    refuses: str = ""

    @property
    def rejects(self) -> bool:
        return "rejects" in self.refuses

    @property
    def abstains(self) -> bool:
        return "abstains" in self.refuses


CASES = {
    f"{name}-{refuses.replace(' ', '-') or 'answers'}": Case(kind, labels, refuses)
    for name, kind, labels in (
        ("one", "single_label", WORDS),
        ("one-of-many", "single_label", tuple(f"label {i}" for i in range(150))),
        ("several", "multi_label", WORDS),
        ("yes-or-no", "multi_label", ("spam",)),
        ("ordered", "ordinal", WORDS),
        ("stars", "ordinal", NUMBERS),
        ("number", "regression", ()),
    )
    for refuses in REFUSALS
    if "abstains" not in refuses or "abstain_below" in KINDS[kind].settings
}
"""By task."""


def texts() -> list[Text]:
    rng = np.random.default_rng(3)
    return [*texts_of_all_lengths(), *(wordy(rng, size) for size in range(1, 60))]


def quantile(values: np.ndarray, at: float) -> float:
    """One of the values, below which lie so many."""
    return float(np.sort(values)[round(at * (len(values) - 1))])


def undecided(case: Case) -> Decision:
    """What a head of that many outputs may have."""
    count = len(case.labels)
    settings: dict[str, Any] = {
        "multi_label": {"thresholds": (0.0,) * count},
        "ordinal": {"cuts": tuple(map(float, range(count - 1)))},
        "regression": {"value_range": (0.0, 1.0)},
    }.get(case.kind, {})
    rejects = {"reject_above": 0.0, "reject_scale": 0.7} if case.rejects else {}
    return Decision(**settings, **rejects)


def decided(case: Case, outputs: np.ndarray) -> Decision:
    """At values that some of the texts, outputs float32 [texts, outputs], have."""
    logits = outputs[:, :-1] if case.rejects else outputs
    decision = undecided(case)
    if case.kind == "multi_label":
        shares = np.linspace(0.2, 0.9, len(case.labels))
        thresholds = map(quantile, logits.T, shares)
        decision = replace(decision, thresholds=tuple(thresholds))
    if case.kind == "ordinal":
        cuts = (quantile(logits[:, 0], share) for share in (0.25, 0.5, 0.8))
        decision = replace(decision, cuts=tuple(cuts))
    if case.kind == "regression":
        value_range = quantile(logits[:, 0], 0.2), quantile(logits[:, 0], 0.9)
        decision = replace(decision, value_range=value_range)
    if case.rejects:
        scores = KINDS[case.kind].reject_scores(outputs[:, -1], logits)
        decision = replace(decision, reject_above=quantile(scores, 0.7))
    if case.abstains:
        kind = KINDS[case.kind]
        best = kind.best(logits, case.labels, decision)
        found = kind.probabilities(logits, case.labels, decision)[np.arange(len(logits)), best]
        decision = replace(decision, abstain_below=quantile(found, 0.3))
    return decision


def make_heads(features: PackedFeatures) -> dict[str, FoldedHead]:
    """Of every case one, which decides by the codes of these texts."""
    heads = {}
    for seed, (task, case) in enumerate(CASES.items()):
        pooling = list(PositionPooling)[seed % 4]
        options = {"labels": case.labels, "kind": case.kind, "decision": undecided(case)}
        head = random_head(features.spec, task, pooling, seed=seed, **options)
        # So that no label is the answer of all texts.
        head = replace(head, output_bias=head.output_bias - ask(head, features).mean(axis=0))
        heads[task] = replace(head, decision=decided(case, ask(head, features)))
    return heads


def ask(head: FoldedHead, features: PackedFeatures) -> np.ndarray:
    """float32 [texts, outputs]"""
    return outputs_of(predict_heads(features, [load_head(head)])[head.task])


@pytest.fixture(scope="module", params=["sign", "uint8"])
def hosts(
    request: pytest.FixtureRequest,
    build_bundle: Callable[..., Path],
    library: HostLibrary,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Engine, HostEngine]]:
    """Both, on a bundle with a head of every case."""
    bundle = tmp_path_factory.mktemp("kinds") / "bundle"
    shutil.copytree(build_bundle("bert", quantization=Quantization(request.param)), bundle)
    with Engine.load(bundle, "openvino", precision="fp32") as engine:
        heads = make_heads(engine.encode(texts()))
    for task, head in heads.items():
        write_head(head, bundle / "heads" / f"{task}.safetensors")
    with (
        Engine.load(bundle, "openvino", precision="fp32") as engine,
        HostEngine(library, bundle, "fp32") as host,
    ):
        yield engine, host


def test_every_kind_has_the_same_answers(hosts: tuple[Engine, HostEngine]) -> None:
    engine, host = hosts
    features = engine.encode(texts())
    expected = engine.predict_features(features)
    got = host.predict_features(features.codes, features.offsets)
    assert set(got) == set(expected) == set(CASES)
    for task, case in CASES.items():
        assert_same_answer(got[task], expected[task])
        tells_apart(case, expected[task].accepted, expected[task].has_label)


def tells_apart(case: Case, accepted: np.ndarray, has_label: np.ndarray) -> None:
    """The answers are not all the same, so that a host that mixed them up would be found out."""
    if case.refuses:
        assert 0.2 < accepted.mean() < 0.95
    else:
        assert accepted.all()
    counts = np.count_nonzero(has_label, axis=0)
    assert np.count_nonzero((counts > 0) & (counts < len(has_label))) >= min(2, len(case.labels))


def test_a_text_alone_has_the_answer_it_has_in_a_batch(hosts: tuple[Engine, HostEngine]) -> None:
    engine, host = hosts
    features = engine.encode(texts())
    together = engine.predict_features(features)
    for i in range(0, len(features), 7):
        one = features[i]
        alone = host.predict_features(one.codes, np.array([0, len(one.codes)]))
        for task, answer in alone.items():
            assert_same_answer(answer, together[task][i : i + 1])


def test_no_texts_have_no_answers(hosts: tuple[Engine, HostEngine]) -> None:
    engine, host = hosts
    none = engine.encode(["a"]).codes[:0]
    for task, answer in host.predict_features(none, np.array([0])).items():
        num_logits = KINDS[CASES[task].kind].num_logits(CASES[task].labels)
        assert answer.logits.shape == (0, num_logits)
        assert answer.probabilities.shape == answer.has_label.shape == (0, len(CASES[task].labels))
        assert (len(answer.best), len(answer.accepted)) == (0, 0)


def test_what_is_known_of_a_head(hosts: tuple[Engine, HostEngine]) -> None:
    for task, info in hosts[1].task_infos.items():
        assert info == HostTask("single", CASES[task].kind, bool(CASES[task].refuses))


@contextmanager
def added(host: HostEngine, head: FoldedHead, folder: Path) -> Iterator[None]:
    path = folder / f"{head.task}.safetensors"
    write_head(head, path)
    host.add_head(path)
    try:
        yield
    finally:
        host.remove_head(head.task)


def constant_head(spec: FeatureSpec, outputs: list[float], **options: Any) -> FoldedHead:
    """Of any text these outputs."""
    head = random_head(spec, "constant", **options)
    bias = np.array(outputs, np.float32)
    return replace(head, output=np.zeros_like(head.output), output_bias=bias)


LN3 = float(np.log(3))
KNOWN: dict[str, tuple[dict[str, Any], list[float], dict[str, Any]]] = {
    "softmax": (
        {"labels": ("a", "b")},
        [0.0, LN3],
        {"probabilities": [0.25, 0.75], "top": "b", "has_label": [0, 1]},
    ),
    "softmax, equal": (
        {"labels": ("a", "b", "c", "d")},
        [2.0] * 4,
        {"probabilities": [0.25] * 4, "top": "a", "has_label": [1, 0, 0, 0]},
    ),
    "as likely as asked": (
        {"labels": ("a", "b", "c", "d"), "decision": Decision(abstain_below=0.25)},
        [80.0] * 4,
        {"accepted": True},
    ),
    "less likely than asked": (
        {"labels": ("a", "b", "c"), "decision": Decision(abstain_below=0.34)},
        [-80.0] * 3,
        {"accepted": False},
    ),
    "at the thresholds, above and below": (
        {
            "kind": "multi_label",
            "labels": ("a", "b", "c"),
            "decision": Decision(thresholds=(LN3, 0.5, 0.25)),
        },
        [LN3, -LN3, 0.5],
        {"probabilities": [0.75, 0.25, 0.6224593], "has_label": [1, 0, 1], "top": None},
    ),
    "large logits": (
        {"kind": "multi_label", "labels": ("a", "b"), "decision": Decision(thresholds=(0, 0))},
        [200.0, -200.0],
        {"probabilities": [1.0, 0.0], "has_label": [1, 0]},
    ),
    "between two cuts": (
        {
            "kind": "ordinal",
            "labels": ("1", "2", "4"),
            "decision": Decision(cuts=(-LN3, LN3), abstain_below=0.49),
        },
        [0.0],
        {"probabilities": [0.25, 0.5, 0.25], "top": "2", "values": 2.25, "accepted": True},
    ),
    "at the upper cut, in words": (
        {
            "kind": "ordinal",
            "labels": ("1", "2.", "4"),
            "decision": Decision(cuts=(-LN3, LN3), abstain_below=0.51),
        },
        [LN3],
        {"probabilities": [0.1, 0.4, 0.5], "top": "4", "values": 1.4, "accepted": False},
    ),
    "within the range": (
        {"kind": "regression", "labels": (), "decision": Decision(value_range=(1, 5))},
        [3.5],
        {"values": 3.5, "probabilities": [], "has_label": [], "top": None, "accepted": True},
    ),
    "above the range, rejected": (
        {
            "kind": "regression",
            "labels": (),
            "decision": Decision(value_range=(1, 5), reject_above=1, reject_scale=0.5),
        },
        [7.0, 2 * LN3],
        {"values": 5.0, "out_of_domain": 0.75, "accepted": False},
    ),
    "at the reject output's threshold": (
        {"labels": ("a", "b"), "decision": Decision(reject_above=-1.5, reject_scale=LN3)},
        [1.0, 8.0, 6.5],
        {"top": "b", "out_of_domain": 0.1613905, "accepted": True},
    ),
    "above that threshold": (
        {"labels": ("a", "b"), "decision": Decision(reject_above=-1.75, reject_scale=2 * LN3)},
        [8.0, 1.0, 6.5],
        {"top": "a", "out_of_domain": 0.0357143, "accepted": False},
    ),
}
"""Options of a head, its outputs, and what is known of the answer."""


@pytest.mark.parametrize(("options", "outputs", "known"), KNOWN.values(), ids=KNOWN.keys())
def test_answers_that_are_known(
    host_engine: HostEngine,
    host_bundle: Path,
    tmp_path: Path,
    options: dict[str, Any],
    outputs: list[float],
    known: dict[str, Any],
) -> None:
    """Figures by hand, which share nothing with either host."""
    head = constant_head(read_manifest(host_bundle).spec, outputs, **options)
    with added(host_engine, head, tmp_path):
        got = host_engine.predict(["a text"], ["constant"])["constant"]
    for name, value in known.items():
        found = getattr(got, name)
        if isinstance(value, str | bool) or value is None:
            assert found[0] == value, name
        else:
            np.testing.assert_allclose(found[0], value, atol=1e-6, err_msg=name)


LEVELS = {
    "whole": ("1", "2", "30"),
    "signs and points": ("-1.5", "0", "0.125"),
    "zeros before": ("007", "-00.50", "3"),
    "fifteen digits": ("123456789012345", "0.1234567890123", "-12345678901.234"),
    "sixteen": ("1234567890123456", "1", "2"),
    "no digit before": ("1", "2", ".5"),
    "no digit behind": ("1", "2", "5."),
    "two points": ("1", "2", "5.1.2"),
    "a plus": ("+1", "2", "3"),
    "two signs": ("--1", "2", "3"),
    "an exponent": ("1e3", "2", "3"),
    "a comma": ("1,5", "2", "3"),
    "a blank": (" 1", "2", "3"),
    "nothing": ("", "1", "2"),
    "a sign alone": ("-", "1", "2"),
    "a point alone": (".", "1", "2"),
    "digits of others": ("\u0663", "1", "2"),
    "a power": ("1", "2", "3\u00b2"),
    "a part of others": ("1", "2", "3.\u0663"),
    "not a number": ("nan", "inf", "1"),
}


@pytest.mark.parametrize("labels", LEVELS.values(), ids=LEVELS.keys())
def test_labels_that_are_numbers_or_not(
    host_bundle: Path, host_engine: HostEngine, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    decision = Decision(cuts=(-1.0, 1.0))
    head = random_head(
        read_manifest(host_bundle).spec, "rated", labels=labels, kind="ordinal", decision=decision
    )
    with (
        Engine.load(host_bundle, "openvino", precision="fp32") as engine,
        added(host_engine, head, tmp_path),
    ):
        engine.add_head(tmp_path / "rated.safetensors")
        asked = texts()[:20]
        got = host_engine.predict(asked, ["rated"])["rated"]
        assert_same_answer(got, engine.predict(asked, ["rated"])["rated"])


@pytest.fixture(scope="module")
def bundle_for_texts(host_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the tokenizer's graph, and a head of every case."""
    bundle = Path(shutil.copytree(host_bundle, tmp_path_factory.mktemp("kinds") / "bundle"))
    with Engine.load(bundle, "openvino", precision="fp32") as engine:
        heads = make_heads(engine.encode(texts()))
    for path in (bundle / "heads").iterdir():
        path.unlink()
    for task, head in heads.items():
        write_head(head, bundle / "heads" / f"{task}.safetensors", "float16")
    return bundle


def test_the_command_line_shows_every_kind(host_build: Path, bundle_for_texts: Path) -> None:
    """What Python's shows, in the same order."""
    asked = [
        text for text in texts() if isinstance(text, str) and text.strip() and "\t" not in text
    ]
    command = (host_build / "predict_lines", bundle_for_texts, "--precision", "fp32")
    shown = [json.loads(line) for line in run(*command, stdin="\n".join(asked)).splitlines()]
    assert [answer["text"] for answer in shown] == asked
    with Engine.load(bundle_for_texts, "openvino", precision="fp32") as engine:
        expected = engine.predict(asked)
    for task, prediction in expected.items():
        for answer, said in zip(shown, json_answers(prediction), strict=True):
            assert said is not None
            assert_said(answer["tasks"][task], said)


def assert_said(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(got) == list(expected)
    for name, value in expected.items():
        if name == "labels" or isinstance(value, str | bool):
            assert got[name] == value
        else:
            assert got[name] == pytest.approx(value, abs=2e-6)


def test_a_program_in_cpp_is_told_what_a_head_has_not(
    in_a_program: Path, bundle_for_texts: Path
) -> None:
    shown = iter(run(in_a_program, "kinds", bundle_for_texts).splitlines())
    for task in sorted(CASES):
        case = CASES[task]
        assert next(shown) == f"{task} {case.kind} {bool(case.refuses):d}"
        error = next(shown)
        if case.kind in ("single_label", "ordinal"):
            assert error == "no error"
        else:
            assert error.startswith(
                f"status 1: task '{task}': got a call of top, but its {case.kind}"
            )
        has_value = case.kind in ("ordinal", "regression")
        assert next(shown) == ("a value" if has_value else "no value")
        assert next(shown) == ("a reject output" if case.rejects else "no reject output")
        assert next(shown) == "Prediction::accepted: no such text"
    assert next(shown, None) is None
