"""Processes that are forked from one with a loaded engine: errors that say what to do, no hang."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from random_heads import random_head

from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.head_file import write_head

FORK = """
import gc, json, os, signal, sys
from pathlib import Path
from bitheads import Engine
from bitheads.engine.heads.cpu import HeadThreads
from bitheads.engine.process.read_ahead import read_ahead
from bitheads.engine.serve.scheduler import Request, Scheduler

bundle, backend, head = sys.argv[1:]
texts = [f"Short text number {i}" for i in range(64)]

def load():
    return Engine.load(bundle, backend, threads=2, precision="fp32")

def said(call):
    try:
        call()
        return "answered"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def in_child(calls):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends it, should it hang
        with open(write, "w") as answer:
            json.dump({name: said(call) for name, call in calls.items()}, answer)
        sys.exit(0)  # as a program ends, with all that is freed then
    os.close(write)
    with open(read) as answer:
        answers = answer.read()
    assert os.waitpid(child, 0)[1] == 0, "the child did not end well"
    return json.loads(answers)
"""

USED = """
engine = load()
codes = engine.encode(texts, max_batch_tokens=16).codes  # in lanes, where there are any
loaded_head = engine.read_head(head)
engine.add_head(head)
features = engine.encode(texts)
tokens = engine.tokenizer(["a text"])
expected = engine.predict(texts)
threads = HeadThreads(2)
assert threads._pool.submit(len, "ab").result() == 2
scheduler = Scheduler(engine, 1000)
stream = engine.encode_stream(iter(texts), chunk_texts=8)
next(stream)
ahead = read_ahead(iter(range(100)))
next(ahead)

def free():
    global engine, threads, scheduler, stream, ahead
    engine.close()
    scheduler.close()
    threads.close()
    del engine, threads, scheduler, stream, ahead
    gc.collect()

answers = in_child({
    "encode": lambda: engine.encode(["a text"]),
    "encode many": lambda: engine.encode(texts, max_batch_tokens=16),
    "encode_stream": lambda: engine.encode_stream(texts),
    "stream": lambda: next(stream),
    "predict": lambda: engine.predict(["a text"]),
    "predict_features": lambda: engine.predict_features(features),
    "add_head": lambda: engine.add_head(head),
    "read_head": lambda: engine.read_head(head),
    "use_head": lambda: engine.use_head(loaded_head),
    "remove_head": lambda: engine.remove_head(loaded_head.task),
    "choose_heads": lambda: engine.choose_heads(None),
    "tasks": lambda: engine.tasks,
    "tokenizer": lambda: engine.tokenizer,
    "encoder": lambda: engine.encoder,
    "HeadThreads": lambda: threads.predict(features, [loaded_head]),
    "Scheduler": lambda: scheduler.submit(Request(tokens, (), True)),
    "read_ahead": lambda: next(ahead),
    "free": free,
    "load": lambda: load().encode(texts, max_batch_tokens=16),
})
print(json.dumps(answers))
assert (engine.encode(texts, max_batch_tokens=16).codes == codes).all()
scheduler.close()
"""

CLOSED = """
with load() as engine:
    engine.encode(texts, max_batch_tokens=16)
del engine
gc.collect()
print(json.dumps(in_child({"load": lambda: load().encode(texts, max_batch_tokens=16)})))
"""

BEFORE = """
print(json.dumps(in_child({"load": lambda: load().encode(texts, max_batch_tokens=16)})))
"""


@pytest.fixture(scope="module")
def head(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "some.safetensors"
    write_head(random_head(read_manifest(tiny_bundle).spec, "some"), path)
    return path


def run(program: str, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_child_of_a_process_that_used_an_engine(
    backend: str, tiny_bundle: Path, head: Path
) -> None:
    answers = run(FORK + USED, tiny_bundle, backend, head)
    new = answers.pop("load")
    assert answers.pop("free") == "answered"
    for call, answer in answers.items():
        assert answer.startswith("ForkedError: "), (call, answer)
    assert "this engine was loaded in process " in answers["encode"]
    for fix in ("gunicorn's post_fork", "worker_process_init", "'spawn' or 'forkserver'"):
        assert fix in answers["encode"]
    if backend == "openvino":
        assert new.startswith("ForkedError: OpenVINO was loaded in process ")
    else:
        assert new == "answered"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_child_of_a_process_that_closed_its_engine(
    backend: str, tiny_bundle: Path, head: Path
) -> None:
    answer = run(FORK + CLOSED, tiny_bundle, backend, head)["load"]
    expected = "ForkedError" if backend == "openvino" else "answered"
    assert answer.partition(":")[0] == expected


@pytest.mark.parametrize("backend", ["auto", "openvino", "onnxruntime"])
def test_a_child_that_loads_the_first_engine(backend: str, tiny_bundle: Path, head: Path) -> None:
    assert run(FORK + BEFORE, tiny_bundle, backend, head) == {"load": "answered"}


POOLS = """
import json, multiprocessing, sys
from bitheads import Engine, ForkedError

def work(bundle):
    with Engine.load(bundle, "openvino", precision="fp32") as engine:
        return len(engine.encode(["a text"]))

if __name__ == "__main__":
    answers = {}
    with Engine.load(sys.argv[1], "openvino", precision="fp32"):
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                try:
                    answers[method] = pool.apply(work, (sys.argv[1],))
                except ForkedError as error:
                    answers[method] = "ForkedError"
    print(json.dumps(answers))
"""


def test_pools_of_processes(tiny_bundle: Path, tmp_path: Path) -> None:
    program = tmp_path / "pools.py"
    program.write_text(POOLS)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(program), str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert json.loads(done.stdout) == {"fork": "ForkedError", "spawn": 1, "forkserver": 1}
