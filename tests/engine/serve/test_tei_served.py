"""Heads and tokens by the routes of text-embeddings-inference; its embeddings are beside this."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import running
from head_kinds import LABELS
from huggingface_hub import InferenceClient
from random_heads import random_head
from tokenizers import Tokenizer

from bitheads import BackendError, Engine, InputError
from bitheads.engine.bundle import TOKENIZER
from bitheads.engine.serve.errors import internal, of_engine, queue_full, timed_out

TEXTS = [
    "What a lovely film.",
    "Shares fell 8 percent.",
    "Übermäßig naïve 😀 日本の a\u0301 end",
    "",
]
PAIRS = [["A film.", "What a lovely film."], ["Shares fell.", "Why?"]]
KEY = "a-key-of-the-tests-0123"
MAX_LENGTH = 512


@pytest.fixture(scope="module")
def client(kinds_bundle: Path) -> Iterator[httpx.Client]:
    """Of a server with heads of every kind."""
    with running(kinds_bundle) as (client, _):
        yield client


@pytest.fixture(scope="module")
def engine(kinds_bundle: Path) -> Iterator[Engine]:
    """What the server's answers are compared with."""
    with Engine.load(kinds_bundle, backend="onnxruntime") as engine:
        yield engine


@pytest.fixture(scope="module")
def one_head(tiny_bundle: Path) -> Iterator[httpx.Client]:
    """Of a server with one head, for single texts."""
    with running(tiny_bundle) as (client, server):
        server.engine.add_head(random_head(server.engine.spec, "topic", classes=4))
        yield client


@pytest.fixture(scope="module")
def byte_level(build_bundle: Callable[..., Path]) -> Path:
    """Whose tokens are parts of characters, too."""
    return build_bundle("roberta")


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and type of an error, whose form is that of text-embeddings-inference."""
    content = answer.json()
    assert {*content} == {"error", "error_type"}
    assert isinstance(content["error"], str)
    return answer.status_code, content["error_type"]


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(logits.astype(np.float64))
    total: np.ndarray[Any, Any] = powers / powers.sum(axis=1, keepdims=True)
    return total


def tasks_of(engine: Engine, kind: str, form: str = "single") -> list[str]:
    return [t for t, info in engine.tasks.items() if info.kind == kind and info.form == form]


class TestPredict:
    def test_of_one_text_and_of_a_batch(self, one_head: httpx.Client, tiny_bundle: Path) -> None:
        with Engine.load(tiny_bundle, backend="onnxruntime") as engine:
            engine.add_head(random_head(engine.spec, "topic", classes=4))
            expected = engine.predict(TEXTS)["topic"]
        batch = one_head.post("/predict", json={"inputs": [[text] for text in TEXTS]}).json()
        assert len(batch) == len(TEXTS)
        for found, text, top in zip(batch, TEXTS, expected.top, strict=True):
            assert one_head.post("/predict", json={"inputs": text}).json() == found
            assert one_head.post("/predict", json={"inputs": [text]}).json() == found
            assert found[0]["label"] == top
            scores = [one["score"] for one in found]
            assert scores == sorted(scores, reverse=True)
        assert_scores(batch, expected.labels, softmax(expected.logits))

    def test_raw_scores_are_logits(self, one_head: httpx.Client) -> None:
        asked = {"inputs": [[text] for text in TEXTS]}
        raw = one_head.post("/predict", json={**asked, "raw_scores": True}).json()
        found = one_head.post("/predict", json=asked).json()
        labels = sorted(one["label"] for one in raw[0])
        logits = np.array([[score_of(row, label) for label in labels] for row in raw])
        assert (logits < 0).any()
        assert_scores(found, labels, softmax(logits))

    @pytest.mark.parametrize("kind", ["single_label", "multi_label", "ordinal"])
    def test_of_a_head_that_is_named(self, client: httpx.Client, engine: Engine, kind: str) -> None:
        tasks = tasks_of(engine, kind)
        assert tasks
        for task in tasks:
            asked = {"inputs": [[text] for text in TEXTS]}
            found = client.post("/predict", params={"task": task}, json=asked).json()
            expected = engine.predict(TEXTS, tasks=[task])[task]
            assert expected.labels == LABELS[kind]
            assert_scores(found, expected.labels, expected.probabilities)
            if kind == "multi_label":
                logistic = 1 / (1 + np.exp(-expected.logits.astype(np.float64)))
                assert_scores(found, expected.labels, logistic)
            raw = client.post("/predict", params={"task": task}, json={**asked, "raw_scores": True})
            if kind == "ordinal":  # one logit for all labels
                assert refused(raw) == (422, "validation")
                assert "raw_scores: got true" in raw.json()["error"]
            else:
                assert_scores(raw.json(), expected.labels, expected.logits)

    @pytest.mark.parametrize("form", ["pair", "two_texts"])
    def test_of_pairs(self, client: httpx.Client, engine: Engine, form: str) -> None:
        for task in tasks_of(engine, "single_label", form):
            expected = engine.predict([(a, b) for a, b in PAIRS], tasks=[task])[task]
            params = {"task": task}
            found = client.post("/predict", params=params, json={"inputs": PAIRS}).json()
            assert_scores(found, expected.labels, expected.probabilities)
            single = client.post("/predict", params=params, json={"inputs": PAIRS[0]}).json()
            assert single == found[0]

    def test_the_form_of_the_texts_chooses_among_heads(self, tiny_bundle: Path) -> None:
        with running(tiny_bundle) as (client, server):
            spec = server.engine.spec
            server.engine.add_head(random_head(spec, "topic", labels=("a", "b")))
            server.engine.add_head(random_head(spec, "same", labels=("c", "d"), form="pair"))
            single = client.post("/predict", json={"inputs": "A text."}).json()
            pair = client.post("/predict", json={"inputs": ["A text.", "Another."]}).json()
        assert {one["label"] for one in single} == {"a", "b"}
        assert {one["label"] for one in pair} == {"c", "d"}

    def test_no_head_or_several(
        self, client: httpx.Client, engine: Engine, tiny_bundle: Path
    ) -> None:
        several = client.post("/predict", json={"inputs": "A text."})
        assert refused(several) == (422, "validation")
        (task, *_) = sorted(tasks_of(engine, "multi_label"))
        assert f"'{task}'" in several.json()["error"]
        assert "/predict?task=" in several.json()["error"]
        with running(tiny_bundle) as (bare, server):
            none = bare.post("/predict", json={"inputs": "A text."})
            assert refused(none) == (422, "validation")
            assert "loaded are none" in none.json()["error"]
            server.engine.add_head(random_head(server.engine.spec, "topic"))
            of_pairs = bare.post("/predict", json={"inputs": ["A text.", "Another."]})
            assert "gives pairs of texts labels; loaded are ['topic']" in of_pairs.json()["error"]

    @pytest.mark.parametrize(
        ("task", "inputs", "status", "message"),
        [
            ("no-such-task", "a", 404, "no such head is loaded"),
            ("", "a", 404, "no such head is loaded"),
            ("{regression}", "a", 422, "no labels with scores"),
            ("{token_label}", "a", 422, "no labels with scores"),
            ("{single_label}", ["a", "b"], 422, "its head reads single texts"),
            ("{single_label}", [["a"], ["a", "b"]], 422, "got single texts and pairs"),
            ("{single_label}", [], 400, "inputs: got an empty list"),
            ("{single_label}", ["a", "b", "c"], 422, "inputs"),
            ("{single_label}", [["a", "b", "c"]], 422, "inputs"),
            ("{single_label}", [[]], 422, "inputs"),
            ("{single_label}", ["a", ["b"]], 422, "inputs"),
            ("{single_label}", 7, 422, "inputs"),
            ("{single_label}", "\ud800", 422, ""),
            ("{single_label}", [["a"]] * 1001, 413, "expected at most 1000"),
            ("{single_label}", "a" * (1 << 18) + "b", 413, "--max-chars"),
        ],
    )
    def test_what_is_refused(
        self,
        client: httpx.Client,
        engine: Engine,
        task: str,
        inputs: Any,
        status: int,
        message: str,
    ) -> None:
        if task.startswith("{"):
            task = tasks_of(engine, task[1:-1])[0]
        body = json.dumps({"inputs": inputs})  # which sends lone surrogates, too
        answer = client.post("/predict", params={"task": task}, content=body)
        assert refused(answer) == (status, "empty" if status == 400 else "validation")
        assert message in answer.json()["error"]

    def test_what_is_cut(self, one_head: httpx.Client) -> None:
        asked: dict[str, Any] = {"inputs": "word " * 600}
        assert one_head.post("/predict", json=asked).status_code == 200
        for truncate, direction, status in (
            (False, "right", 413),
            (None, "left", 422),
            (True, "Left", 422),
            (True, "Right", 200),
            (True, "middle", 422),
        ):
            how = {"truncate": truncate, "truncation_direction": direction}
            answer = one_head.post("/predict", json={**asked, **how})
            assert answer.status_code == status, how
            if status != 200:
                assert refused(answer) == (status, "validation")
        short = {"inputs": "word", "truncate": False, "truncation_direction": "left"}
        assert one_head.post("/predict", json=short).status_code == 200

    def test_the_client_of_huggingface_hub(
        self, one_head: httpx.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes the first of what it is given: of a hub's list of lists a text's labels, of
        text-embeddings-inference, and so of us, the likeliest label."""
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        url = f"{one_head.base_url}/predict?task=topic"
        found: Any = InferenceClient(model=url).text_classification(TEXTS[0])
        expected = one_head.post("/predict", json={"inputs": TEXTS[0]}).json()[0]
        assert (found.label, found.score) == (expected["label"], expected["score"])


def score_of(row: list[dict[str, Any]], label: str) -> float:
    (score,) = [one["score"] for one in row if one["label"] == label]
    return float(score)


def assert_scores(
    found: list[list[dict[str, Any]]], labels: Any, expected: np.ndarray[Any, Any]
) -> None:
    """expected: [texts, labels]."""
    assert len(found) == len(expected)
    for row in found:
        scores = [one["score"] for one in row]
        assert scores == sorted(scores, reverse=True)
    told = [[score_of(row, label) for label in labels] for row in found]
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)


class TestTokenize:
    @pytest.mark.parametrize("family", ["bert", "roberta"])
    @pytest.mark.parametrize("own", [True, False])
    def test_is_as_the_library_has_it(
        self, family: str, own: bool, client: httpx.Client, kinds_bundle: Path, byte_level: Path
    ) -> None:
        if family == "bert":
            check_tokens(client, kinds_bundle, own)
        else:
            with running(byte_level) as (client, _):
                check_tokens(client, byte_level, own)

    def test_nothing_is_cut_and_many_pieces_are_one_answer(
        self, client: httpx.Client, kinds_bundle: Path
    ) -> None:
        library = plain(kinds_bundle)
        texts = ["word " * 600, *(f"{i} 日本 " * (i % 20) for i in range(700)), "a" * 100_000]
        told = client.post("/tokenize", json={"inputs": texts}).json()
        encodings = [library.encode(text) for text in texts]
        assert [[one["id"] for one in tokens] for tokens in told] == [e.ids for e in encodings]
        assert len(told[0]) > MAX_LENGTH

    def test_prompts_go_before_a_text(self, build_bundle: Callable[..., Path]) -> None:
        bundle = build_bundle("bert", embedding="mean", precision="fp32")
        library = plain(bundle)
        prompts = {"query": "Frage: ä ", "passage": "text: "}
        with running(bundle) as (client, server):
            manifest = server.engine.manifest
            assert manifest.embedding is not None
            spec = replace(manifest.embedding, prompts=prompts, default_prompt="passage")
            server.engine.manifest = replace(manifest, embedding=spec)
            for name, prompt in (("query", prompts["query"]), (None, prompts["passage"])):
                asked = {"inputs": TEXTS, "prompt_name": name}
                for tokens, text in zip(
                    client.post("/tokenize", json=asked).json(), TEXTS, strict=True
                ):
                    assert_told(tokens, prompt + text, library.encode(prompt + text))
            unknown = client.post("/tokenize", json={"inputs": "a", "prompt_name": "none"})
            assert refused(unknown) == (422, "validation")
            assert "['passage', 'query']" in unknown.json()["error"]

    def test_the_prefix_of_a_bundle_goes_before_a_text(
        self, build_bundle: Callable[..., Path]
    ) -> None:
        bundle = build_bundle("bert", prefix="query: ")
        library = plain(bundle)
        with running(bundle) as (client, server):
            (told,) = client.post("/tokenize", json={"inputs": TEXTS[2]}).json()
            ids = server.engine.tokenizer([TEXTS[2]])[0].ids.tolist()
        assert_told(told, "query: " + TEXTS[2], library.encode("query: " + TEXTS[2]))
        assert [one["id"] for one in told] == ids

    @pytest.mark.parametrize(
        ("asked", "status", "message"),
        [
            ({"inputs": []}, 400, "inputs: got an empty list"),
            ({"inputs": [1, 2]}, 422, "inputs"),
            ({"inputs": [["a", "b"]]}, 422, "inputs"),
            ({"inputs": None}, 422, "inputs"),
            ({}, 422, "inputs"),
            ({"inputs": "a", "add_special_tokens": "no"}, 422, "add_special_tokens"),
            ({"inputs": "a", "prompt_name": "query"}, 404, "this bundle gives none"),
            ({"inputs": "\ud800"}, 422, ""),
            ({"inputs": ["a"] * 1001}, 413, "expected at most 1000"),
            ({"inputs": "a" * (1 << 18) + "b"}, 413, "--max-chars"),
            ({"inputs": "a " * (1 << 17)}, 413, "--max-queue-tokens"),
            ({"inputs": ["b " * 1000] * 100}, 413, "--max-queue-tokens"),
        ],
    )
    def test_what_is_refused(
        self, client: httpx.Client, asked: dict[str, Any], status: int, message: str
    ) -> None:
        answer = client.post("/tokenize", content=json.dumps(asked))
        assert refused(answer) == (status, "empty" if status == 400 else "validation")
        assert message in answer.json()["error"]

    def test_the_limit_of_tokens_is_exact(self, tiny_bundle: Path) -> None:
        with running(tiny_bundle, max_queue_tokens=100) as (client, _):
            for texts in (["a " * 98], ["a"] * 33 + [" "], ["a " * 48] * 2):
                within = client.post(
                    "/tokenize", json={"inputs": texts, "add_special_tokens": True}
                )
                count = sum(map(len, within.json()))
                assert count <= 100
            over = client.post("/tokenize", json={"inputs": ["a " * 98, ""]})
            assert refused(over) == (413, "validation")

    def test_longer_texts_than_are_read(self, tiny_bundle: Path) -> None:
        options: dict[str, Any] = {"max_chars": 1 << 20, "max_queue_tokens": 1 << 20}
        with running(tiny_bundle, **options) as (client, _):
            answer = client.post("/tokenize", json={"inputs": ["a", "b" * ((1 << 18) + 1)]})
            assert refused(answer) == (422, "validation")
            assert "text 1: got 262145 characters" in answer.json()["error"]


def plain(bundle: Path) -> Tokenizer:
    """The library's own tokenizer of a bundle, which cuts nothing."""
    library = Tokenizer.from_file(str(bundle / TOKENIZER))
    library.no_truncation()
    library.no_padding()
    return library


def check_tokens(client: httpx.Client, bundle: Path, own: bool) -> None:
    library = plain(bundle)
    asked = {"inputs": TEXTS, "add_special_tokens": own}
    told = client.post("/tokenize", json=asked).json()
    for tokens, text in zip(told, TEXTS, strict=True):
        assert_told(tokens, text, library.encode(text, add_special_tokens=own))
        single = client.post("/tokenize", json={**asked, "inputs": text}).json()
        assert single == [tokens]
    assert any(one["special"] for one in told[0]) == own


def assert_told(tokens: list[dict[str, Any]], text: str, encoding: Any) -> None:
    """As the library's encoding of the text is, whose places are characters."""
    data = text.encode()
    assert [one["id"] for one in tokens] == encoding.ids
    for i, one in enumerate(tokens):
        assert {*one} == {"id", "text", "special", "start", "stop"}
        assert one["special"] == bool(encoding.special_tokens_mask[i])
        if one["special"]:
            assert (one["text"], one["start"], one["stop"]) == (encoding.tokens[i], None, None)
        else:
            first, end = encoding.offsets[i]
            assert one["text"] == text[first:end] == data[one["start"] : one["stop"]].decode()
            assert one["start"] == len(text[:first].encode())


class TestDecode:
    @pytest.mark.parametrize("skip", [True, False])
    def test_is_as_the_library_has_it(
        self, client: httpx.Client, kinds_bundle: Path, skip: bool
    ) -> None:
        library = plain(kinds_bundle)
        ids = [library.encode(text).ids for text in TEXTS]
        asked = {"ids": ids, "skip_special_tokens": skip}
        found = client.post("/decode", json=asked).json()
        assert found == [library.decode(one, skip_special_tokens=skip) for one in ids]
        assert client.post("/decode", json={**asked, "ids": ids[0]}).json() == found[:1]
        assert "film" in found[0]
        assert ("[CLS]" in found[0]) != skip

    def test_many_ids(self, client: httpx.Client, kinds_bundle: Path) -> None:
        library = plain(kinds_bundle)
        ids = library.encode("word " * 2500).ids
        found = client.post("/decode", json={"ids": [ids] * 5}).json()
        assert found == [library.decode(ids)] * 5

    def test_ids_of_no_token(self, client: httpx.Client) -> None:
        assert client.post("/decode", json={"ids": [(1 << 32) - 1, 1 << 20]}).json() == [""]
        assert client.post("/decode", json={"ids": [[]]}).json() == [""]

    @pytest.mark.parametrize(
        ("asked", "status", "message"),
        [
            ({"ids": []}, 400, "ids: got an empty list"),
            ({"ids": 5}, 422, "ids"),
            ({"ids": [-1]}, 422, "ids"),
            ({"ids": [1 << 32]}, 422, "ids"),
            ({"ids": [1.5]}, 422, "ids"),
            ({"ids": [True]}, 422, "ids"),
            ({"ids": [1, [2]]}, 422, "ids"),
            ({"ids": ["a"]}, 422, "ids"),
            ({}, 422, "ids"),
            ({"ids": [[1]] * 1001}, 413, "expected at most 1000"),
            ({"ids": [1] * 30_000}, 413, "--max-texts"),
        ],
    )
    def test_what_is_refused(
        self, client: httpx.Client, asked: dict[str, Any], status: int, message: str
    ) -> None:
        answer = client.post("/decode", json=asked)
        assert refused(answer) == (status, "empty" if status == 400 else "validation")
        assert message in answer.json()["error"]


ASKED: dict[str, Any] = {
    "/predict": {"inputs": "A text."},
    "/tokenize": {"inputs": "A text."},
    "/decode": {"ids": [1, 2]},
}


class TestAllOfThem:
    def test_vectors_of_tokens_are_refused_by_name(self, client: httpx.Client) -> None:
        answer = client.post("/embed_all", json={"inputs": "A text."})
        assert refused(answer) == (424, "backend")
        assert "/v1/features" in answer.json()["error"]

    def test_each_needs_a_key(self, tiny_bundle: Path) -> None:
        with running(tiny_bundle, api_keys=(KEY,)) as (client, server):
            server.engine.add_head(random_head(server.engine.spec, "topic"))
            headers = {"authorization": f"Bearer {KEY}"}
            for path, asked in ASKED.items():
                assert refused(client.post(path, json=asked)) == (401, "validation"), path
                assert client.post(path, json=asked, headers=headers).status_code == 200, path
            assert client.post("/embed_all", json={}).status_code == 401

    def test_each_has_the_limit_of_a_body(self, tiny_bundle: Path) -> None:
        with running(tiny_bundle, max_body_bytes=200) as (client, _):
            for path, asked in ASKED.items():
                large = {**asked, "unknown": "x" * 300}
                assert refused(client.post(path, json=large)) == (413, "validation"), path

    def test_each_has_the_form_of_errors_behind_a_proxy(self, tiny_bundle: Path) -> None:
        with running(tiny_bundle, root_path="/some/where") as (client, _):
            for path in (*ASKED, "/embed", "/similarity", "/"):
                for before in ("", "/some/where"):
                    answer = client.post(before + path, json={"x": 1})
                    assert refused(answer) == (422, "validation"), path
                    assert refused(client.put(before + path)) == (405, "validation"), path

    def test_a_server_that_ends(self, tiny_bundle: Path) -> None:
        """It takes no texts to encode; what needs no encoder is answered to the end."""
        with running(tiny_bundle) as (client, server):
            server.engine.add_head(random_head(server.engine.spec, "topic"))
            server.drain()
            for path, asked in ASKED.items():
                answer = client.post(path, json=asked)
                if path == "/predict":
                    assert refused(answer) == (503, "unhealthy")
                else:
                    assert answer.status_code == 200, path

    def test_errors_of_the_page_are_our_own(self, tiny_bundle: Path) -> None:
        """It is read at /, where embeddings are asked for, too."""
        with running(tiny_bundle) as (client, _):
            headers = {"host": "elsewhere.example.org"}
            assert {*client.get("/", headers=headers).json()["error"]} == {"code", "message"}
            answer = client.post("/", headers=headers, json={"inputs": "a"})
            assert refused(answer) == (403, "validation")

    @pytest.mark.parametrize("path", [*ASKED, "/embed", "/embed_all", "/similarity", "/", "/info"])
    def test_the_types_of_errors(self, path: str) -> None:
        for error, kind in {
            queue_full(1.0): "overloaded",
            timed_out(1.0, 1.0): "overloaded",
            internal("7"): "backend",
            of_engine(BackendError("x")): "backend",
            of_engine(InputError("x")): "validation",
        }.items():
            assert json.loads(error.body(path)) == {"error": error.message, "error_type": kind}

    def test_each_is_counted(self, one_head: httpx.Client) -> None:
        def total(path: str) -> float:
            lines = one_head.get("/metrics").text.splitlines()
            named = [one for one in lines if one.startswith("bitheads_requests_total")]
            return sum(float(one.split()[-1]) for one in named if f'route="{path}"' in one)

        before = {path: total(path) for path in ASKED}
        for path, asked in ASKED.items():
            answer = one_head.post(path, json=asked)
            assert "dur=" in answer.headers["server-timing"], path
            assert answer.headers["x-request-id"]
        assert {path: total(path) - before[path] for path in ASKED} == dict.fromkeys(ASKED, 1)
