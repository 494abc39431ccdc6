"""Heads of every kind, that refuse and that do not: whoever is asked gives the same answers.

What Python says is compared with arithmetic on the logits here, and all others with Python.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.dataset as ds
import pytest
from conftest import ADMIN_KEY, running
from head_kinds import LABELS, SINGLE, TEXTS
from scipy.special import logsumexp
from tritonclient import http as triton

from bitheads import Engine, Prediction, Predictions
from bitheads.engine.answer_parts import json_answers
from bitheads.engine.commands import backfill, predict
from bitheads.engine.features.words import END, START, Words
from bitheads.engine.heads.head_file import FoldedHead, read_head, write_head
from bitheads.engine.kinds import KINDS
from bitheads.engine.predictions import Span
from bitheads.engine.serve.kserve.outputs import outputs_of
from bitheads.engine.serve.messages import (
    PredictResponse,
    TasksResponse,
    to_json,
    write_predictions,
)
from bitheads.engine.serve.work import OTHER_BYTES, answer_bytes
from bitheads.engine.store import FeatureStore, StoreWriter

MODEL = "kinds"
ROUNDING = 5.1e-7
"""Of a probability in JSON."""

Told = dict[str, dict[str, Any]]
"""What is said of one text, by task: `probabilities` are of all labels."""


@pytest.fixture(scope="module")
def bundle(kinds_bundle: Path) -> Path:
    return kinds_bundle


@pytest.fixture(scope="module")
def heads(bundle: Path) -> list[FoldedHead]:
    return [read_head(path) for path in sorted((bundle / "heads").iterdir())]


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[Engine]:
    with Engine.load(bundle, "onnxruntime") as engine:
        yield engine


@pytest.fixture(scope="module")
def answers(engine: Engine) -> Predictions:
    return engine.predict(TEXTS)


@pytest.fixture(scope="module")
def expected(answers: Predictions) -> list[Told]:
    """What Python says."""
    told: list[Told] = [{} for _ in TEXTS]
    for task, prediction in answers.items():
        kind = KINDS[prediction.kind]
        for row in np.flatnonzero(prediction.answered):
            one: dict[str, Any] = {}
            if kind.is_one_label:
                one |= {"label": prediction.top[row], "probability": prediction.probability[row]}
            elif kind.is_of_words:
                one["spans"] = [vars(span) for span in prediction.spans[row]]
                if prediction.truncated_at[row] is not None:
                    one["truncated_at"] = prediction.truncated_at[row]
            elif prediction.labels:
                one["labels"] = list(prediction.selected[row])
            if prediction.values is not None:
                one["value"] = prediction.values[row]
            if prediction.decision.can_refuse:
                one["accepted"] = bool(prediction.accepted[row])
            if prediction.out_of_domain is not None:
                one["out_of_domain"] = prediction.out_of_domain[row]
            if prediction.labels and not kind.is_of_words:
                one["probabilities"] = prediction.probabilities[row].tolist()
            told[row][task] = one
    return told


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[httpx.Client]:
    with running(bundle) as (client, _):
        yield client


def spans_of_logits(prediction: Prediction, row: int) -> Iterator[Span]:
    """Of the likeliest sequence of tags, all that may follow each other in a matrix."""
    words = prediction.words
    assert words is not None
    first, last = words.offsets[row : row + 2].tolist()
    logits, places = prediction.logits[first:last].astype(float), words.table[first:last]
    tags = np.arange(logits.shape[1])
    goes_on = (tags > 0) & (tags % 2 == 0)
    may_follow = ~goes_on | (tags[:, None] == tags) | (tags[:, None] == tags - 1)
    allowed = np.where(may_follow, 0.0, -np.inf)
    best, before, back = [], [], []  # sums up to each word, of its tags
    for i, own in enumerate(logits):
        best.append(own + ((best[-1][:, None] + allowed).max(axis=0) if i else allowed[0]))
        before.append(own + (logsumexp(before[-1][:, None] + allowed, axis=0) if i else allowed[0]))
        back.append((best[-2][:, None] + allowed).argmax(axis=0) if i else tags)
    path: list[int] = []
    share, behind = [], np.zeros(len(tags))  # of all sequences, those with each tag
    for i in reversed(range(len(logits))):
        path.insert(0, int(back[i + 1][path[0]] if path else best[i].argmax()))
        share.insert(0, np.exp(before[i] + behind - logsumexp(before[i] + behind)))
        behind = logsumexp(allowed + logits[i] + behind, axis=1)
    found: list[list[int]] = []
    for word, tag in enumerate(path):
        if tag % 2:
            found.append([word, word, tag])
        elif tag:
            found[-1][1] = word
    for i, k, tag in found:
        likely = min(float(of_word[tag] + of_word[tag + 1]) for of_word in share[i : k + 1])
        label = prediction.labels[tag // 2]
        start, end = int(places[i, START]), int(places[k, END])
        yield Span(start, end, label, pytest.approx(likely, abs=1e-6))


def test_what_python_says_is_what_the_logits_say(
    heads: list[FoldedHead], answers: Predictions
) -> None:
    """In float64 and text by text; and of each decision both sides are met."""
    seen: dict[str, set[object]] = {head.task: set() for head in heads}
    refused = set()
    for head in heads:
        found, decision = answers[head.task], head.decision
        is_pair = head.form != "single"
        assert found.answered.tolist() == [isinstance(text, tuple) == is_pair for text in TEXTS]
        for row in np.flatnonzero(found.answered):
            if head.kind == "token_label":
                assert [*found.spans[row]] == [*spans_of_logits(found, row)]
                seen[head.task].add(bool(found.spans[row]))
                continue
            logits = found.logits[row].astype(float).tolist()
            best = value = None
            if head.kind == "single_label":
                total = sum(map(math.exp, logits))
                likely = [math.exp(logit) / total for logit in logits]
                best = max(range(len(logits)), key=logits.__getitem__)
            elif head.kind == "multi_label":
                likely = [1 / (1 + math.exp(-logit)) for logit in logits]
                pairs = zip(logits, decision.thresholds, head.labels, strict=True)
                has = tuple(label for logit, least, label in pairs if logit >= np.float32(least))
                assert found.selected[row] == has
                seen[head.task].add(len(has))
            elif head.kind == "ordinal":
                above = [1.0, *(1 / (1 + math.exp(cut - logits[0])) for cut in decision.cuts), 0.0]
                likely = [a - b for a, b in pairwise(above)]
                best = sum(share >= 0.5 for share in above[1:-1])
                value = sum(p * float(label) for p, label in zip(likely, head.labels, strict=True))
            else:
                likely, (low, high) = [], decision.value_range or (0, 0)
                value = min(max(logits[0], low), high)
                seen[head.task].add((logits[0] > low) + (logits[0] > high))
            assert found.probabilities[row].tolist() == pytest.approx(likely, abs=1e-6)
            accepted = True
            if best is not None:
                assert found.top[row] == head.labels[best]
                assert found.selected[row] == (head.labels[best],)
                seen[head.task].add(head.labels[best])
                if decision.abstain_below is not None:
                    accepted &= bool(found.probability[row] >= np.float32(decision.abstain_below))
            if value is not None:
                assert found.values is not None
                assert found.values[row] == pytest.approx(value, rel=1e-6)
            if decision.reject_above is not None:
                assert found.reject_logits is not None
                assert found.out_of_domain is not None
                reject = found.reject_logits[row]
                if head.kind == "single_label":  # one more class
                    reject -= found.logits[row].max()
                out = 1 / (1 + math.exp(-decision.reject_scale * reject))
                assert found.out_of_domain[row] == pytest.approx(out, rel=1e-6)
                accepted &= bool(reject <= np.float32(decision.reject_above))
            assert found.accepted[row] == accepted
            if not accepted:
                refused.add(head.task)
    for head in heads:
        assert (head.task in refused) == head.decision.can_refuse, head.task
        assert len(seen[head.task]) > 1, (head.task, seen[head.task])
    assert any(0 in seen[head.task] for head in heads if head.kind == "multi_label")


def by_http(client: httpx.Client, **_: Any) -> list[Told]:
    asked = {"inputs": TEXTS, "return_probabilities": True}
    return from_json(client.post("/v1/predict", json=asked).content)


def by_http_without_probabilities(client: httpx.Client, **_: Any) -> list[Told]:
    return from_json(client.post("/v1/predict", json={"inputs": TEXTS}).content, is_all=False)


def by_features(client: httpx.Client, **_: Any) -> list[Told]:
    kept = client.post("/v1/features", json={"inputs": TEXTS}).json()
    asked = {"features": kept["features"], "spec_id": kept["spec_id"]}
    asked["return_probabilities"] = True
    return from_json(client.post("/v1/predict_features", json=asked).content)


def by_command(
    bundle: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], **_: Any
) -> list[Told]:
    path = tmp_path / "texts.txt"
    lines = [text if isinstance(text, str) else "\t".join(text) for text in TEXTS]
    path.write_text("\n".join(lines), encoding="utf-8")
    options = ["--bundle", str(bundle), "--input", str(path), "--json"]
    assert predict.main([*options, "--backend", "onnxruntime"]) == 0
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == [list(t) if isinstance(t, tuple) else t for t in TEXTS]
    return [only_of_all(row["tasks"]) for row in rows]


def by_kserve(client: httpx.Client, binary: bool) -> list[Told]:
    told: list[Told] = [{} for _ in TEXTS]
    with triton.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}") as server:
        described = server.get_model_metadata(MODEL)["outputs"]
        for forms in (("single",), ("pair", "two_texts")):
            is_pair = forms != ("single",)
            rows = [i for i, t in enumerate(TEXTS) if isinstance(t, tuple) == is_pair]
            texts = [TEXTS[row] for row in rows]
            columns = list(zip(*texts, strict=True)) if is_pair else [texts]
            inputs = []
            for name, column in zip(("text", "text_pair"), columns, strict=False):
                tensor = triton.InferInput(name, [len(column)], "BYTES")
                array = np.array([text.encode() for text in column], object)
                tensor.set_data_from_numpy(array, binary_data=binary)
                inputs.append(tensor)
            asked = [
                triton.InferRequestedOutput(output["name"], binary_data=binary)
                for output in described
                if of_forms(output["name"], forms)
            ]
            found = server.infer(MODEL, inputs, outputs=asked)
            for output in described:
                name = output["name"]
                if not of_forms(name, forms):
                    continue
                array = found.as_numpy(name)
                shape = [len(rows) if size == -1 else size for size in output["shape"]]
                assert [*array.shape] == shape
                assert found.get_output(name)["datatype"] == output["datatype"]
                task, _, part = re.fullmatch(r"(.*-(single|pair|two_texts))_?(.*)", name).groups()
                for row, value in zip(rows, array.tolist(), strict=True):
                    if (part, value) != ("truncated_at", -1):
                        told[row].setdefault(task, {}).update(from_tensor(task, part, value))
    return told


def of_forms(name: str, forms: Sequence[str]) -> bool:
    """Whether an output is of a head of one of these forms."""
    return any(f"-{form}" in name for form in forms)


def from_tensor(task: str, part: str, value: Any) -> dict[str, Any]:
    value = value.decode() if isinstance(value, bytes) else value
    if part:
        return {part: value}
    kind = task.split("-")[0]
    if kind == "multi_label":
        return {"labels": json.loads(value)}
    if kind == "token_label":
        return {"spans": json.loads(value)}
    return {"value": value} if kind == "regression" else {"label": value}


def by_kserve_in_json(client: httpx.Client, **_: Any) -> list[Told]:
    return by_kserve(client, False)


def by_kserve_in_binary(client: httpx.Client, **_: Any) -> list[Told]:
    return by_kserve(client, True)


def of_words(task: str) -> bool:
    return task.startswith("token_label")


def by_backfill(engine: Engine, bundle: Path, tmp_path: Path, **_: Any) -> list[Told]:
    store = FeatureStore(tmp_path / "store", engine.spec)
    with StoreWriter(store, row_group_bytes=900) as writer:
        for start in (0, 9):
            rows = range(len(TEXTS))[start : start + 9 if start == 0 else None]
            features = engine.encode([TEXTS[row] for row in rows], words=True)
            writer.append([str(row) for row in rows], features)
            writer.flush()
    options = ["--bundle", bundle, "--store", store.folder, "--output", tmp_path / "answers"]
    options += ["--probabilities"]
    assert backfill.main([str(option) for option in options]) == 0
    pairs = {row: text for row, text in enumerate(TEXTS) if isinstance(text, tuple)}
    apart = FeatureStore(tmp_path / "apart", engine.spec)
    with StoreWriter(apart) as writer:
        for side, name in enumerate("ab"):
            texts = [pair[side] for pair in pairs.values()]
            writer.append([f"{row}{name}" for row in pairs], engine.encode(texts))
    lines = ["id_a\tid_b", *(f"{row}a\t{row}b" for row in pairs)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    options[3] = apart.folder
    options += ["--pairs", tmp_path / "pairs.tsv"]
    assert backfill.main([str(option) for option in options]) == 0
    told: list[Told] = [{} for _ in TEXTS]
    for folder in (tmp_path / "answers").glob("task=*"):
        for row in ds.dataset(folder).to_table().to_pylist():
            if row.get("truncated_at", 0) is None:  # which JSON does not tell
                row.pop("truncated_at")
            if "id_b" in row:
                row["id"] = row.pop("id_a").removesuffix("a")
                assert row.pop("id_b") == f"{row['id']}b"
            task = row.pop("task")
            assert folder.name == f"task={task}"
            assert row.pop("head").startswith("h")
            told[int(row.pop("id"))][task] = row
    return told


def from_json(body: bytes, is_all: bool = True) -> list[Told]:
    PredictResponse.model_validate_json(body)
    assert b"null" not in body
    rows: list[Told] = json.loads(body)["predictions"]
    if not is_all:
        return [only_of_all(row) for row in rows]
    for row in rows:
        for task, answer in row.items():
            if "probabilities" in answer:
                assert [*answer["probabilities"]] == list(LABELS[task.split("-")[0]])
                answer["probabilities"] = [*answer["probabilities"].values()]
    return rows


def only_of_all(row: Told) -> Told:
    """Where not all probabilities were asked for: those of the selected labels, in their places."""
    for task, answer in row.items():
        likely = answer.pop("probabilities", None)
        assert (likely is not None) == ("labels" in answer), task
        if likely is not None:
            assert [*likely] == answer["labels"]
            answer["probabilities"] = [likely.get(label) for label in LABELS["multi_label"]]
    return row


@pytest.mark.parametrize(
    "ask",
    [
        by_http,
        by_http_without_probabilities,
        by_features,
        by_command,
        by_kserve_in_json,
        by_kserve_in_binary,
        by_backfill,
    ],
)
def test_whoever_is_asked_says_the_same(
    ask: Callable[..., list[Told]],
    client: httpx.Client,
    engine: Engine,
    bundle: Path,
    expected: list[Told],
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    told = ask(
        client=client, engine=engine, bundle=bundle, tmp_path=tmp_path, capsysbinary=capsysbinary
    )
    # Tensors have no likeliest probability, and short answers not those of all labels.
    left_out = {
        by_http_without_probabilities: {"probabilities"},
        by_command: {"probabilities"},
        by_kserve_in_json: {"probability"},
        by_kserve_in_binary: {"probability"},
    }.get(ask, set())
    assert len(told) == len(expected)
    for row, wanted in zip(told, expected, strict=True):
        # Codes that are sent have no words, and do not say which go together.
        known = {t for t in wanted if not of_words(t) and not t.endswith("two_texts")}
        assert {*row} == (known if ask is by_features else {*wanted})
        for task, answer in row.items():
            is_several = "labels" in answer
            ignored = left_out - {"probabilities"} if is_several else left_out
            assert {*answer} == {*wanted[task]} - ignored, task
            for part, value in answer.items():
                same(part, value, wanted[task][part])


def same(part: str, told: Any, wanted: Any) -> None:
    if part == "value":
        assert np.float32(told) == wanted
    elif part == "probabilities":
        for one, other in zip(told, wanted, strict=True):
            assert one is None or one == pytest.approx(other, abs=ROUNDING)
    elif part == "spans":
        assert len(told) == len(wanted)
        for one, other in zip(told, wanted, strict=True):
            likely = other["probability"]
            assert one == {**other, "probability": pytest.approx(likely, abs=ROUNDING)}
    elif part in ("probability", "out_of_domain"):
        assert told == pytest.approx(float(wanted), abs=ROUNDING)
    else:
        assert told == wanted
        assert type(told) is type(wanted)


def test_no_texts(client: httpx.Client, engine: Engine, heads: list[FoldedHead]) -> None:
    assert client.post("/v1/predict", json={"inputs": []}).json()["predictions"] == []
    nothing = {"features": [], "spec_id": engine.spec.id}
    assert client.post("/v1/predict_features", json=nothing).json()["predictions"] == []
    text = {"name": "text", "datatype": "BYTES", "shape": [0], "data": []}
    found = client.post(f"/v2/models/{MODEL}/infer", json={"inputs": [text]}).json()["outputs"]
    assert {output["name"] for output in found} >= {h.task for h in heads if h.form == "single"}
    assert all(output["shape"][0] == 0 and output["data"] == [] for output in found)
    for head in heads:
        none = Prediction(
            head.labels,
            np.empty((0, KINDS[head.kind].num_logits(head.labels)), np.float32),
            head.kind,
            head.decision,
            np.empty(0, np.float32) if head.decision.reject_above is not None else None,
        )
        assert json_answers(none, True) == []
        assert none.accepted.shape == none.answered.shape == (0,)


def test_tasks_are_described(client: httpx.Client, heads: list[FoldedHead]) -> None:
    body = client.get("/v1/tasks").content
    TasksResponse.model_validate_json(body)
    assert b"null" not in body
    tasks = {task["name"]: task for task in json.loads(body)["tasks"]}
    assert len(tasks) == len(heads)
    for head in heads:
        task, decision = tasks[head.task], head.decision
        assert task["kind"] == head.kind
        assert task["labels"] == list(head.labels)
        assert task["can_refuse"] == decision.can_refuse
        said = {"thresholds", "value_range", "abstain_below", "reject_above"} & {*task}
        assert said == {*decision.to_json()} - {"cuts", "reject_scale"}
        if decision.thresholds:
            likely = [1 / (1 + math.exp(-logit)) for logit in decision.thresholds]
            assert [*task["thresholds"]] == list(head.labels)
            assert [*task["thresholds"].values()] == pytest.approx(likely, abs=ROUNDING)
        if decision.reject_above is not None:
            likely_out = 1 / (1 + math.exp(-decision.reject_scale * decision.reject_above))
            assert task["reject_above"] == pytest.approx(likely_out, abs=ROUNDING)


def test_the_description_knows_every_field(client: httpx.Client, expected: list[Told]) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    parts = {part for row in expected for answer in row.values() for part in answer}
    assert {*schemas["TaskAnswer"]["properties"]} == parts
    assert schemas["Task"]["properties"]["kind"]["enum"] == list(KINDS)


def infer(client: httpx.Client, *outputs: str) -> httpx.Response:
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [SINGLE[0]]}
    asked = {"inputs": [text], "outputs": [{"name": name} for name in outputs]}
    return client.post(f"/v2/models/{MODEL}/infer", json=asked)


def test_an_output_that_a_head_has_not(client: httpx.Client) -> None:
    for task, parts in {
        "single_label-never-single": ("value", "accepted", "out_of_domain"),
        "single_label-abstains-single": ("out_of_domain",),
        "multi_label-rejects-single": ("value",),
        "regression-never-single": ("probabilities", "value", "truncated_at"),
        "token_label-never-single": ("probabilities", "spans", "accepted"),
    }.items():
        assert infer(client, task).status_code == 200
        for part in parts:
            found = infer(client, task, f"{task}_{part}")
            assert found.status_code == 404
            assert f"output '{task}_{part}': the head of task" in found.json()["error"]


def test_a_task_named_as_another_ones_output(
    client: httpx.Client, heads: list[FoldedHead], tmp_path: Path
) -> None:
    """The name is the task's, in the metadata, asked for alone and among all."""
    other = "ordinal-both-single"
    head = next(h for h in heads if h.task == "single_label-never-single")
    name = f"{other}_accepted"
    write_head(replace(head, task=name), tmp_path / "new.safetensors")
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    body = (tmp_path / "new.safetensors").read_bytes()
    assert client.put(f"/v1/tasks/{name}", content=body, headers=admin).status_code == 204
    try:
        described = client.get(f"/v2/models/{MODEL}").json()["outputs"]
        assert [o["datatype"] for o in described if o["name"] == name] == ["BYTES"]
        (found,) = infer(client, name).json()["outputs"]
        assert found["data"][0] in head.labels
        every = infer(client).json()["outputs"]
        assert [o["datatype"] for o in every if o["name"] == name] == ["BYTES"]
        assert f"{other}_out_of_domain" in [o["name"] for o in every]
    finally:
        assert client.delete(f"/v1/tasks/{name}", headers=admin).status_code == 204


def test_refusals_are_counted(bundle: Path, answers: Predictions) -> None:
    with running(bundle) as (client, _):
        assert client.post("/v1/predict", json={"inputs": TEXTS}).status_code == 200
        shown = client.get("/metrics").text
    pattern = r'^bitheads_task_{}_total{{task="(.*)"}} ([\d.]+)$'
    counts = {
        name: dict(re.findall(pattern.format(name), shown, re.MULTILINE))
        for name in ("answers", "refusals")
    }
    for task, prediction in answers.items():
        answered, accepted = prediction.answered.sum(), prediction.accepted.sum()
        assert float(counts["answers"][task]) == answered
        assert (task in counts["refusals"]) == prediction.decision.can_refuse
        assert float(counts["refusals"].get(task, 0)) == answered - accepted
    assert sum(map(float, counts["refusals"].values())) > 100


def ten_words(texts: int) -> Words:
    """Of each text, late in it, and all were cut."""
    places = np.arange(texts * 10, dtype=np.int32) % 10
    table = np.column_stack([places, places * 0 + 1, 262_000 + places, 262_001 + places])
    offsets = np.arange(texts + 1, dtype=np.int64) * 10
    return Words(table, offsets, offsets[1:] * 0 + 262_010, offsets[1:] > 0)


@pytest.mark.parametrize("labels", [LABELS["multi_label"], ('\x01\x1f\\"' * 9, "😀" * 300, "é")])
@pytest.mark.parametrize("all_probabilities", [False, True])
def test_answers_are_no_longer_than_was_thought(
    heads: list[FoldedHead], labels: Sequence[str], all_probabilities: bool
) -> None:
    """With numbers of many digits, and all labels selected."""
    for head in heads:
        names = tuple(f"{i}{labels[i % len(labels)]}" for i in range(len(head.labels)))
        decision = head.decision
        if decision.thresholds:
            decision = replace(decision, thresholds=(-3e38,) * len(names))
        if decision.value_range:
            decision = replace(decision, value_range=(-1e38, 1e38))
        outputs = KINDS[head.kind].num_logits(names)
        words = ten_words(200) if of_words(head.task) else None
        rows = 200 if words is None else len(words.table)
        logits = np.random.default_rng(0).normal(0, 1e-5, (rows, outputs)).astype(np.float32)
        reject = logits[:, 0] if decision.reject_above is not None else None
        found = {head.task: Prediction(names, logits, head.kind, decision, reject, words)}
        usage = {"texts": 200, "tokens": 10**6, "truncated": 0}
        body = write_predictions(found, all_probabilities, usage, "0" * 16)
        assert len(body) <= answer_bytes(found, all_probabilities), head.task
        tensors = [to_json(o.values) for o in outputs_of(head.task, found[head.task], (), None)]
        assert sum(map(len, tensors)) <= answer_bytes(found, True), head.task
        if labels is LABELS["multi_label"]:  # nor is it much shorter
            assert answer_bytes(found, all_probabilities) < 3 * len(body) + OTHER_BYTES, head.task
