"""No connection, no child process and no file that nobody asked for, whatever is done."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from local_hub import local_hub
from marks import long
from random_heads import random_head
from watched import STRACE, Watch

from bitheads import Engine
from bitheads.engine.heads.head_file import write_head

DATA = Path(__file__).parent / "data"


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    (tmp_path / "watched").mkdir()
    return Watch(tmp_path / "watched")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a head; in a folder that nobody else writes to."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("quiet") / "bundle"))
    with Engine.load(folder, "onnxruntime") as engine:
        write_head(random_head(engine.spec, "tone"), folder / "heads" / "tone.safetensors")
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quiet") / "texts.txt"
    path.write_text("a text\nanother text\n" * 4)
    return path


def check(watch: Watch, *output: Path, children: Collection[str] = ()) -> None:
    assert watch.connections() == set()
    assert watch.children() <= {*children}
    assert watch.written(*output) == set()
    assert list(watch.home.iterdir()) == []


def test_what_is_seen(watch: Watch) -> None:
    program = """
import socket, subprocess, pathlib
for address in ("198.51.100.1", "127.0.0.1"):  # an address of documents, where nobody is
    with socket.socket() as sender:
        sender.setblocking(False)
        sender.connect_ex((address, 9))
subprocess.run(["true"], check=True)
pathlib.Path.home().joinpath("kept").write_text("")
"""
    watch.run("-c", program)
    assert watch.connections() == {"198.51.100.1"}
    assert watch.children() == {"true"}
    assert watch.written() == ({str(watch.home / "kept")} if STRACE else set())


@pytest.mark.skipif(STRACE is None, reason="strace is not there: apt-get install strace")
def test_what_native_code_does_is_seen(watch: Watch) -> None:
    """And so in all other tests."""
    program = """
import ctypes, os, struct
c = ctypes.CDLL(None)
there = struct.pack("=HH4s8x", 2, 9 << 8, bytes([198, 51, 100, 1]))
c.connect(c.socket(2, 1 | 0o4000, 0), there, 16)  # which does not wait
c.system(b"true")
c.creat(os.path.expanduser("~/kept").encode(), 0o600)
"""
    watch.run("-c", program)
    assert watch.connections() == {"198.51.100.1"}
    assert "true" in watch.children() or "sh" in watch.children()
    assert watch.written() == {str(watch.home / "kept")}


@pytest.mark.parametrize("backend", ["auto", "openvino", "onnxruntime"])
def test_predicting(watch: Watch, backend: str, bundle: Path, texts: Path) -> None:
    given = ["--bundle", bundle, "--backend", backend, "--input", texts]
    assert "tone" in watch.run("-m", "bitheads", "predict", *given)
    check(watch)


def test_encoding_and_backfilling(watch: Watch, bundle: Path, texts: Path, tmp_path: Path) -> None:
    store, answers = tmp_path / "store", tmp_path / "answers"
    watch.run("-m", "bitheads", "encode", "--bundle", bundle, "--input", texts, "--store", store)
    check(watch, store)
    watch.run(
        "-m", "bitheads", "backfill", "--bundle", bundle, "--store", store, "--output", answers
    )
    check(watch, store, answers)
    assert store.is_dir()
    assert answers.is_dir()


@contextmanager
def ended(watch: Watch) -> Iterator[None]:
    """Whatever happens, the program is asked to end."""
    try:
        yield
    finally:
        os.kill(watch.pid, signal.SIGTERM)


def test_serving(watch: Watch, bundle: Path, tmp_path: Path) -> None:
    key, kept = "an-admin-key-of-the-tests", tmp_path / "kept"
    given = ["--port", "0", "--bundle", bundle, "--admin-keys", key, "--heads", kept]
    with watch.start("-m", "bitheads", "serve", *given) as process, ended(watch):
        assert process.stdout is not None
        found = (re.search(r"http://[\w.]+:\d+", line) for line in process.stdout)
        url = next(match[0] for match in found if match)
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.post("/v1/predict", json={"inputs": ["a text"]}).status_code == 200
            head = (bundle / "heads" / "tone.safetensors").read_bytes()
            bearer = {"Authorization": f"Bearer {key}"}
            put = client.put("/v1/tasks/tone", content=head, headers=bearer)
            assert put.status_code == 204
            assert client.get("/metrics").status_code == 200
    assert (kept / "tone.safetensors").is_file()
    check(watch, kept)


LDCONFIG = {"ldconfig", "/sbin/ldconfig"}
"""Python's own, to find a shared library by its name."""


def test_building(
    watch: Watch, tiny_encoder: Callable[[str], Path], few_texts: Path, tmp_path: Path
) -> None:
    """In int8, too: torch, transformers, ONNX, NNCF, OpenVINO, ONNX Runtime."""
    output = tmp_path / "built" / "bundle"
    given = ["--encoder", tiny_encoder("bert"), "--calibration", few_texts, "--precision", "int8"]
    watch.run("-m", "bitheads", "build", *given, "--output", output)
    assert (output / "bundle.json").is_file()
    check(watch, output.parent, children=LDCONFIG)


def test_training(watch: Watch, bundle: Path, tmp_path: Path) -> None:
    header, *rows = (DATA / "topics.tsv").read_text(encoding="utf-8").splitlines()
    for name, part in {"train": rows[:40], "dev": rows[40:60]}.items():
        (tmp_path / f"{name}.tsv").write_text("\n".join([header, *part]), encoding="utf-8")
    output = tmp_path / "heads" / "topic.safetensors"
    given = ["--bundle", bundle, "--task", "topic", "--epochs", "1", "--output", output]
    given += ["--train", tmp_path / "train.tsv", "--dev", tmp_path / "dev.tsv"]
    watch.run("-m", "bitheads", "train-head", *given)
    assert output.is_file()
    check(watch, output.parent, children=LDCONFIG)


@pytest.mark.parametrize("said", ["report", *long("nothing")])
def test_an_encoder_of_the_hub(
    said: str, tiny_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    """The hub is asked for its files, and for nothing else, unless the user wants that."""
    (tmp_path / "watched").mkdir()
    report = {"HF_HUB_DISABLE_TELEMETRY": "0"} if said == "report" else {}
    with local_hub() as hub:
        hub.add("somebody/some-encoder", tiny_encoder("bert"))
        home = str(tmp_path / "home")
        watch = Watch(tmp_path / "watched", HF_ENDPOINT=hub.url, HF_HOME=home, **report)
        given = ["--encoder", "somebody/some-encoder", "--output", tmp_path / "bundle"]
        # Loaded, and then refused.
        watch.run("-m", "bitheads", "build", *given, "--layers", "99", code=1)
    assert watch.connections() == set()
    assert any(path.endswith("/model.safetensors") for path in hub.fetched)
    others = [path for path, _ in hub.asked if "/somebody/some-encoder" not in path]
    assert bool(others) == (said == "report")
    assert any("torch/" in agent for _, agent in hub.asked) == (said == "report")
