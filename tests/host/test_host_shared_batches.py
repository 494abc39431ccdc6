"""Callers of the C++ host that share batches: what each gets, and what becomes of the others."""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from host_build import ROOT, build, run
from random_heads import random_head, random_two_texts_head
from same_answers import assert_same_answer
from test_encode import texts_of_all_lengths
from test_host_agrees import assert_same_codes
from test_host_errors import refused
from test_host_fuzz import sanitized
from test_tokenizer import all_texts

from benchmarks.contenders.host_library import HostEngine, HostLibrary
from benchmarks.serve import host_load
from bitheads import Engine
from bitheads.engine.bundle import read_manifest
from bitheads.engine.cpu_encoder import CPU_CALL_TOKENS
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.kinds import Decision
from bitheads.engine.serve.fair_queue import FairQueue
from bitheads.engine.types import Text

CALLERS = 16


@pytest.fixture(scope="module")
def bundle(host_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads of every kind and form."""
    folder = tmp_path_factory.mktemp("shared") / "bundle"
    shutil.copytree(host_bundle, folder)
    spec = read_manifest(folder).spec
    heads = [
        random_head(spec, "rated", kind="ordinal", decision=Decision(cuts=(-0.5, 0.5))),
        random_head(spec, "found", kind="token_label", seed=3),
        random_head(spec, "named", kind="token_label", seed=4),
        random_two_texts_head(spec, "alike", vector_size=33, inner=5),
        random_two_texts_head(spec, "near", vector_size=8, inner=9, seed=2),
    ]
    for head in heads:
        write_head(head, folder / "heads" / f"{head.task}.safetensors")
    return folder


@pytest.fixture(scope="module")
def python_engine(bundle: Path) -> Iterator[Engine]:
    with Engine.load(bundle, backend="openvino", precision="fp32") as engine:
        yield engine


@pytest.fixture(scope="module", params=[1, 2], ids=["without lanes", "with lanes"])
def engine(
    library: HostLibrary, bundle: Path, request: pytest.FixtureRequest
) -> Iterator[HostEngine]:
    """In fp32, which gives the same bits in any batch."""
    options = {"max_batch_tokens": 128, "share_batches": True, "max_queue_tokens": 10**9}
    with HostEngine(library, bundle, "fp32", request.param, **options) as engine:
        yield engine


@pytest.fixture(scope="module")
def program(host_build: Path) -> Path:
    build(host_build, "shared_batches")
    return host_build / "shared_batches"


def together(work: Callable[[int], None]) -> None:
    """From as many threads as there are callers, which begin at the same time."""
    start = threading.Barrier(CALLERS)

    def call(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(CALLERS) as pool:
        for done in [pool.submit(call, i) for i in range(CALLERS)]:
            done.result()


def test_every_answer_is_that_of_a_call_alone(engine: HostEngine, python_engine: Engine) -> None:
    """Of texts and tasks drawn by chance, whoever asks beside."""
    singles = [text for text in all_texts() if isinstance(text, str)]
    pairs = [text for text in all_texts() if isinstance(text, tuple)]
    infos = engine.tasks
    assert len(infos) == 10

    def ask(number: int) -> None:
        draw = random.Random(number)
        for _ in range(6):
            is_pair = draw.random() < 0.4
            texts: list[Text] = draw.sample(pairs if is_pair else singles, draw.randint(1, 12))
            fitting = [t for t, form in infos.items() if (form != "single") == is_pair]
            tasks = draw.sample(fitting, draw.randint(1, len(fitting)))
            expected = python_engine.predict(texts, tasks)
            if draw.random() < 0.5:
                got = engine.predict(texts, tasks)
            else:
                got = engine.predict_later(texts, tasks).predictions()
            assert list(got) == tasks
            for task, answer in got.items():
                assert_same_answer(answer, expected[task])

    together(ask)


def test_token_ids_go_on_by_themselves(engine: HostEngine, host_engine: HostEngine) -> None:
    tokens = [[2, *range(5, 5 + i % 50), 3] for i in range(60)]
    num_first = [max(1, len(ids) // 2) for ids in tokens]
    expected = host_engine.encode_tokens(tokens, num_first)
    ended = threading.Event()
    calls = [engine.encode_tokens_later(tokens, num_first, ended.set) for _ in range(3)]
    for call in calls:
        np.testing.assert_array_equal(call.features().codes, expected.codes)
        np.testing.assert_array_equal(call.features().offsets, expected.offsets)
        with refused("invalid_input", "expected one of bitheads_predict_later"):
            call.predictions()
    assert ended.wait(60)
    plain = engine.encode_tokens_later(tokens[5:6]).features()
    np.testing.assert_array_equal(plain.codes, engine.encode_tokens(tokens[5:6]).codes)
    with refused("invalid_input", "text 1: got the token id -1"):
        engine.encode_tokens_later([[2, 3], [2, -1, 3]])
    with refused("invalid_input", "share_batches"):
        host_engine.encode_tokens_later(tokens)


def test_every_text_has_its_codes(engine: HostEngine, python_engine: Engine) -> None:
    texts = all_texts()
    expected = python_engine.encode(texts)
    tokens = [[2, *range(5, 5 + i), 3] for i in range(20)]
    of_tokens = engine.encode_tokens(tokens)

    def ask(number: int) -> None:
        if number % 4 == 0:
            assert_same_codes(engine.encode(texts), expected)
        elif number % 4 == 1:
            assert_same_codes(engine.encode_later(texts).features(), expected)
        elif number % 4 == 2:
            found = engine.encode_tokens(tokens)
            np.testing.assert_array_equal(found.codes, of_tokens.codes)
        else:
            for i in range(number, len(texts), CALLERS):
                start, stop = expected.offsets[i], expected.offsets[i + 1]
                alone = engine.encode([texts[i]])
                np.testing.assert_array_equal(alone.codes, expected.codes[start:stop])

    together(ask)


def test_what_is_asked_of_words_is_kept(engine: HostEngine, python_engine: Engine) -> None:
    texts = texts_of_all_lengths()[:12]
    expected = python_engine.predict(texts, ["found"])["found"]
    assert_same_answer(engine.predict_encoded(texts, ["found"])["found"], expected)


def test_no_texts(engine: HostEngine) -> None:
    ended: list[str] = []
    assert engine.encode([]).offsets.tolist() == [0]
    assert engine.predict([])["attends"].logits.shape == (0, 2)
    pending = engine.predict_later([], ["alike"], lambda: ended.append("once"))
    assert pending.wait(0)
    assert ended == ["once"]
    assert pending.predictions()["alike"].logits.shape[0] == 0


def test_errors_are_those_of_one_caller(engine: HostEngine, python_engine: Engine) -> None:
    """They are found before a text is in anyone's batch."""
    texts = texts_of_all_lengths()[:5]
    expected = python_engine.encode(texts)

    def ask(number: int) -> None:
        for _ in range(10):
            if number % 2:
                assert_same_codes(engine.encode(texts), expected)
                continue
            with refused("invalid_input", "text 1", "expected UTF-8"):
                engine.predict_later(["fine", b"a\xff"])
            with refused("invalid_input", "text 1: got 65 token ids", "Cut it"):
                engine.encode_tokens([[2, 3], [2] * 65])
            with refused("invalid_input", "text 0: got the token id 1000000"):
                engine.encode_tokens([[2, 1_000_000, 3]])
            with refused("unknown_task", "'nothing'"):
                engine.predict_later(texts, ["nothing"])
            with refused("invalid_input", "single"):
                engine.predict([*texts, ("one", "two")])

    together(ask)


def test_the_answer_of_another_call(engine: HostEngine) -> None:
    with refused("invalid_input", "bitheads_predict_later"):
        engine.encode_later(["text"]).predictions()
    with refused("invalid_input", "bitheads_encode_later"):
        engine.predict_later(["text"]).features()


def test_calls_that_go_on_want_shared_batches(host_engine: HostEngine) -> None:
    with refused("invalid_input", "share_batches"):
        host_engine.encode_later(["text"])
    with refused("invalid_input", "share_batches"):
        host_engine.predict_later(["text"])


@pytest.mark.parametrize("share_batches", [True, False])
def test_a_queue_of_no_size(library: HostLibrary, bundle: Path, share_batches: bool) -> None:
    with refused("invalid_input", "max_queue_tokens: got -1, expected 1 or more"):
        HostEngine(library, bundle, share_batches=share_batches, max_queue_tokens=-1)


def test_heads_come_and_go(engine: HostEngine, bundle: Path, tmp_path: Path) -> None:
    """A call answers with the head that was there when it began, also where a batch has both."""
    spec = read_manifest(bundle).spec
    texts = texts_of_all_lengths()[:8]
    answers = []
    for seed in (20, 21):
        path = tmp_path / f"{seed}.safetensors"
        write_head(random_head(spec, "moving", seed=seed), path)
        engine.add_head(path, replace=True)
        answers.append(engine.predict(texts, ["moving"])["moving"].logits)
    assert not np.array_equal(*answers)

    def ask(number: int) -> None:
        for turn in range(20):
            if number == 0:
                engine.add_head(tmp_path / f"{20 + turn % 2}.safetensors", replace=True)
            else:
                found = engine.predict(texts, ["moving"])["moving"].logits
                assert any(np.array_equal(found, answer) for answer in answers)

    together(ask)
    engine.remove_head("moving")


@pytest.mark.parametrize("share_batches", [True, False])
def test_the_load_of_the_benchmark(host_build: Path, bundle: Path, share_batches: bool) -> None:
    """Every call is answered, whoever shares batches with whom."""
    found = host_load.measure(
        {
            "library": str(host_build / "libbitheads.so"),
            "bundle": str(bundle),
            "precision": "fp32",
            "threads": 2,
            "share_batches": share_batches,
            "calls": [[["one text"], ["another"]], [["three", "texts", "here"]]],
            "clients": [1, 5],
            "seconds": 0.2,
        }
    )
    assert found["backend"] == "openvino fp32"
    assert len(found["loads"]) == 4
    for load, size in zip(found["loads"], (1, 1, 3, 3), strict=True):
        assert load["texts"] == size * len(load["times_s"]) > 0


SITUATIONS = {
    "mixed": ["0 wrong, 30 refused, 30 told"],
    "kept": ["0 wrong, 30 refused, 30 told"],
    "bounded": ["queue_full", "the same", "still there", "cancelled", "the same", "ok", "2 told"],
    "cancelled": ["the same", "0 wrong, 240 told"],
    "closed": ["closed", "closed", "closed", "closed", "12 closed, 4 told"],
}


def skip_without_lanes(situation: str) -> None:
    """Where all threads of the engine are held, those of two lanes are."""
    if situation == "closed" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor: there are no lanes")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_callers_of_one_process(program: Path, host_bundle: Path, situation: str) -> None:
    skip_without_lanes(situation)
    assert run(program, situation, host_bundle).splitlines() == SITUATIONS[situation]


def test_a_batch_that_fails_ends_its_calls(program: Path, own_host_bundle: Path) -> None:
    """And no thread of the engine: each call is told, and the next ones are taken."""
    shutil.rmtree(own_host_bundle / "heads")  # which this level would not load
    environment = {"BITHEADS_KERNEL_LEVEL": "nonsense"}
    shown = run(program, "failing", own_host_bundle, environment=environment)
    assert shown == "120 failed\n"


@pytest.fixture(scope="module")
def thread_sanitizer() -> tuple[str | Path, ...]:
    """The same program under the thread sanitizer, as a command."""
    folder = ROOT / "build" / "host-thread"
    # The kernels' own levels have their sanitizers: here they would take minutes to compile.
    options = ("-DBITHEADS_SIMD=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    build(folder, "shared_batches", "-DBITHEADS_SANITIZE=thread", *options)
    # Older runtimes cannot place their memory where a kernel randomizes 32 bits of an address.
    fixed = ("setarch", platform.machine(), "-R")
    is_allowed = subprocess.run([*fixed, "true"], capture_output=True, check=False).returncode == 0
    return (*(fixed if is_allowed else ()), folder / "shared_batches")


# Without the last: of what OpenVINO frees at an engine's end this sanitizer has more to suppress
# than there is time for.
@pytest.mark.parametrize("situation", ["mixed", "kept", "bounded", "cancelled"])
@pytest.mark.long
def test_no_two_threads_are_at_the_same_memory(
    thread_sanitizer: tuple[str | Path, ...], host_bundle: Path, situation: str
) -> None:
    suppressions = Path(__file__).parent / "thread_sanitizer.txt"
    environment = {"TSAN_OPTIONS": f"halt_on_error=1 suppressions={suppressions}"}
    shown = run(*thread_sanitizer, situation, host_bundle, environment=environment)
    assert shown.splitlines() == SITUATIONS[situation]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.long
def test_nothing_is_used_that_has_gone(host_bundle: Path, situation: str) -> None:
    """Under the address and undefined-behaviour sanitizers."""
    skip_without_lanes(situation)
    # OpenVINO leaks by design, and frees by its own rules what it allocates.
    environment = {"ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0"}
    shown = run(sanitized("shared_batches"), situation, host_bundle, environment=environment)
    assert shown.splitlines() == SITUATIONS[situation]


def test_a_forked_child_is_told_so(in_a_program: Path, host_bundle: Path) -> None:
    """Its copy of the engine has none of the threads that it would wait for."""
    *errors, _, own, ended = run(in_a_program, "fork-shared", host_bundle).splitlines()
    assert len(errors) == 12
    for error in errors:
        assert error.startswith("status 8: engine: loaded in process ")
    assert (own, ended) == ("its own engine works", "child ended with 0")


@pytest.fixture(scope="module")
def take_batches(host_build: Path) -> Path:
    build(host_build, "take_batches")
    return host_build / "take_batches"


@pytest.mark.parametrize("seed", range(12))
def test_the_batches_are_those_of_the_server(take_batches: Path, seed: int) -> None:
    """Of the same calls, in the same order, with some of them dropped."""
    draw = random.Random(seed)
    budget = draw.choice([1, 64, 100, 1024])
    longest = draw.choice([8, 64, 512])
    queue: FairQueue[int] = FairQueue()
    lines, expected, calls = [], [], 0
    for _ in range(400):
        event = draw.choices(["put", "take", "drop"], [5, 4, 1])[0]
        if event == "put":
            count = draw.choice([1, 1, 1, 2, 16, 400])
            lengths = [draw.randint(1, longest) for _ in range(count)]
            padded = [length + draw.randint(0, 7) for length in lengths]
            queue.put(calls, lengths, padded)
            both = [str(n) for pair in zip(lengths, padded, strict=True) for n in pair]
            lines.append(f"put {' '.join(both)}")
            calls += 1
        elif event == "drop" and calls:
            dropped = draw.randrange(calls)
            lines.append(f"drop {dropped}")
            tokens = sum(row.length for row in queue.drop(dropped))
            expected.append(f"dropped {tokens}")
        elif len(queue):
            lines.append("take")
            rows = queue.take(budget, CPU_CALL_TOKENS)
            expected.append("".join(f"{row.owner}:{row.index} " for row in rows))
    while len(queue):
        lines.append("take")
        rows = queue.take(budget, CPU_CALL_TOKENS)
        expected.append("".join(f"{row.owner}:{row.index} " for row in rows))
    got = run(take_batches, str(budget), stdin="\n".join(lines) + "\n").splitlines()
    assert got == expected
    assert len(got) > 100
