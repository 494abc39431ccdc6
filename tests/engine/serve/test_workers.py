"""A server of several processes: one to its clients, and to whoever ends it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ADMIN_KEY, ServerProcess, wait_for
from prometheus_client.parser import text_string_to_metric_families
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.errors import HeadError, InputError, KeepError, UnknownTaskError
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.process import cores
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.settings import Settings
from bitheads.engine.serve.statistics import Statistics, summed
from bitheads.engine.serve.uploads import HeadFolder
from bitheads.engine.serve.whole import AllParts
from bitheads.engine.serve.workers.supervisor import share_out

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
CONNECTIONS = 16
"""So many that each of two processes has some."""


@pytest.fixture(scope="module", autouse=True)
def needs_cores() -> None:
    if cores.count_cores() < 2:
        pytest.skip("one core: there is nothing to share")


def options(bundle: Path, *more: str) -> list[str]:
    wanted = ["--bundle", str(bundle), "--backend", "onnxruntime", "--admin-keys", ADMIN_KEY]
    return [*wanted, "--workers", "2", *more]


@pytest.fixture(scope="module")
def server(head_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    heads = tmp_path_factory.mktemp("uploads")
    with ServerProcess(*options(head_bundle, "--heads", str(heads))) as server:
        yield server


@pytest.fixture
def clients(server: ServerProcess) -> Iterator[list[httpx.Client]]:
    """Each with a connection of its own."""
    with ExitStack() as stack:
        made = [httpx.Client(base_url=server.url, timeout=60) for _ in range(CONNECTIONS)]
        yield [stack.enter_context(client) for client in made]


def processes(pid: int) -> set[int]:
    """The children of a process that serve: another one is Python's own, for what they share."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    assert len(found) == 2
    return found


def refused(bundle: Path, *arguments: str) -> str:
    """What is said by a server that cannot start."""
    done = subprocess.run(
        [sys.executable, "-m", "bitheads", "serve", "--port", "0", *options(bundle), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_all_processes_answer_as_one(
    server: ServerProcess, clients: list[httpx.Client], offline: Engine
) -> None:
    texts = [f"a text of number {number}" for number in range(CONNECTIONS)]
    topics = offline.predict(texts)["topic"]
    for number, (client, text) in enumerate(zip(clients, texts, strict=True)):
        found = client.post("/v1/predict", json={"inputs": [text], "tasks": ["topic"]}).json()
        answer = found["predictions"][0]["topic"]
        probabilities = topics.probabilities[number]
        assert answer["label"] == topics.labels[probabilities.argmax()]
        assert np.isclose(answer["probability"], probabilities.max(), atol=1e-5)
    answered = [line for line in server.log() if line.get("route") == "/v1/predict"]
    assert {line["process"] for line in answered} == processes(server.pid)


def test_what_is_counted_is_counted_once(
    server: ServerProcess, clients: list[httpx.Client]
) -> None:
    def counted() -> dict[str, float]:
        text = clients[0].get("/metrics").text
        return {
            sample.name + str(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def statistics() -> dict[str, Any]:
        (found,) = clients[1].get("/v2/models/stats").json()["model_stats"]
        return dict(found)

    before, known = counted(), statistics()
    for number, client in enumerate(clients):
        assert client.post("/v1/predict", json={"inputs": [f"new {number}"]}).status_code == 200
    after = counted()
    asked = "bitheads_requests_total[('route', '/v1/predict'), ('status', '200')]"
    assert after[asked] - before[asked] == CONNECTIONS
    assert after["bitheads_texts_total[]"] - before["bitheads_texts_total[]"] == CONNECTIONS
    seconds = "bitheads_request_seconds_bucket[('le', '+Inf'), ('route', '/v1/predict')]"
    assert after[seconds] - before[seconds] == CONNECTIONS
    assert after["bitheads_heads[]"] == 3
    assert after["bitheads_requests_in_flight[]"] == 1  # that which asks
    now = time.time()
    assert now - 600 < after["process_start_time_seconds[]"] < now
    assert statistics()["inference_count"] - known["inference_count"] == CONNECTIONS


def test_heads_come_and_go_everywhere(
    server: ServerProcess, clients: list[httpx.Client], offline: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "tone.safetensors"
    write_head(random_head(offline.spec, task="tone"), path)

    def tasks(client: httpx.Client) -> set[str]:
        return {task["name"] for task in client.get("/v1/tasks").json()["tasks"]}

    for number in range(3):
        put = clients[number].put("/v1/tasks/tone", content=path.read_bytes(), headers=ADMIN)
        assert put.status_code == 204
        assert all("tone" in tasks(client) for client in clients)
        gone = clients[-number].delete("/v1/tasks/tone", headers=ADMIN)
        assert gone.status_code == 204
        assert all("tone" not in tasks(client) for client in clients)
    again = clients[0].delete("/v1/tasks/tone", headers=ADMIN)
    assert again.status_code == 404
    assert "tone" in again.json()["error"]["message"]
    for content, name in ((b"no head", "tone"), (path.read_bytes(), "mood")):
        wrong = clients[0].put(f"/v1/tasks/{name}", content=content, headers=ADMIN)
        assert wrong.status_code == 422
    assert all(tasks(client) == {"topic", "mood", "same"} for client in clients)


def test_uploads_of_many_at_once(
    server: ServerProcess, clients: list[httpx.Client], offline: Engine, tmp_path: Path
) -> None:
    """Two heads of one name: all processes have the same one in the end."""
    from concurrent.futures import ThreadPoolExecutor

    contents = []
    for seed in range(4):
        path = tmp_path / f"{seed}.safetensors"
        write_head(random_head(offline.spec, task="tone", seed=seed), path)
        contents.append(path.read_bytes())

    def upload(number: int) -> int:
        content = contents[number % 4]
        return clients[number].put("/v1/tasks/tone", content=content, headers=ADMIN).status_code

    def answer(client: httpx.Client) -> str:
        return client.post("/v1/predict", json={"inputs": ["a text"], "tasks": ["tone"]}).text

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        assert set(pool.map(upload, range(CONNECTIONS))) == {204}
    assert len({answer(client) for client in clients}) == 1
    assert clients[0].delete("/v1/tasks/tone", headers=ADMIN).status_code == 204


def test_an_uploaded_head_is_there_after_a_restart(
    head_bundle: Path, offline: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "tone.safetensors"
    write_head(random_head(offline.spec, task="tone"), path)
    for times in range(2):
        with (
            ServerProcess(*options(head_bundle, "--heads", str(tmp_path / "kept"))) as server,
            httpx.Client(base_url=server.url, timeout=60) as client,
        ):
            if times == 0:
                put = client.put("/v1/tasks/tone", content=path.read_bytes(), headers=ADMIN)
                assert put.status_code == 204
            tasks = client.get("/v1/tasks").json()["tasks"]
            assert "tone" in {task["name"] for task in tasks}
            assert server.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_all_its_processes(head_bundle: Path, number: int) -> None:
    with ServerProcess(*options(head_bundle)) as server:
        children = processes(server.pid)
        assert server.end(number) == 0
        assert not any(Path(f"/proc/{child}").exists() for child in children)
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)


def test_if_one_process_dies_all_end(head_bundle: Path) -> None:
    with ServerProcess(*options(head_bundle)) as server:
        first, second = sorted(processes(server.pid))
        os.kill(first, signal.SIGKILL)
        assert server._process.wait(60) == 1
        server._reader.join()
        assert not Path(f"/proc/{second}").exists()
        (error,) = [line for line in server.lines if line.startswith("error: ")]
        assert f"its process {first} did, with the exit code -9" in error


def test_processes_whose_parent_was_killed_end(head_bundle: Path) -> None:
    with ServerProcess(*options(head_bundle)) as server:
        children = processes(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        server._process.wait(60)
        wait_for(lambda: not any(_runs(child) for child in children))


def _runs(pid: int) -> bool:
    """Not what has ended and waits for somebody to look at its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_grpc_is_answered_by_all_and_its_port_is_nobody_elses(head_bundle: Path) -> None:
    import grpc
    from tritonclient.grpc import service_pb2

    with ServerProcess(*options(head_bundle, "--grpc-port", "0")) as server:
        wait_for(lambda: any("gRPC on" in line for line in server.lines))
        (said,) = [line["message"] for line in server.log() if "gRPC on" in line["message"]]
        port = int(said.rpartition(":")[2])
        tensor = service_pb2.ModelInferRequest.InferInputTensor
        for number in range(CONNECTIONS):
            request = service_pb2.ModelInferRequest(
                model_name=head_bundle.name,
                inputs=[tensor(name="text", datatype="BYTES", shape=[1])],
            )
            request.inputs[0].contents.bytes_contents.append(f"a text {number}".encode())
            own = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{port}", own) as channel:
                ask = channel.unary_unary(
                    "/inference.GRPCInferenceService/ModelInfer",
                    service_pb2.ModelInferRequest.SerializeToString,
                    service_pb2.ModelInferResponse.FromString,
                )
                assert ask(request, timeout=60).outputs
        answered = [line for line in server.log() if "ModelInfer" in line.get("route", "")]
        assert {line["process"] for line in answered} == processes(server.pid)
        for workers in ("1", "2"):
            more = ("--grpc-port", str(port), "--workers", workers)
            assert "Address already in use" in refused(head_bundle, *more)
        assert server.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "none"], "error: bundle none"),
        (["--workers", "1000"], "error: --workers: got 1000, but there are "),
        (["--workers", "0"], "error: --workers: got 0, expected more than 0."),
    ],
)
def test_what_cannot_be_served(head_bundle: Path, arguments: list[str], message: str) -> None:
    assert message in refused(head_bundle, *arguments)


class TestShares:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ten processors, no quota."""
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2, 12)))
        monkeypatch.setattr(cores, "quota_cores", lambda: None)

    @staticmethod
    def shares(**given: Any) -> list[tuple[Settings, frozenset[int] | None]]:
        return share_out(Settings(bundle=Path("b"), **given))

    def test_every_processor_is_one_process_s(self) -> None:
        for workers in range(2, 11):
            shared = [processors for _, processors in self.shares(workers=workers)]
            assert all(shared)
            assert sorted(number for some in shared for number in some or ()) == [*range(2, 12)]
        own, processors = self.shares(workers=3)[0]
        assert (own.threads, processors) == (3, frozenset((2, 3, 4)))
        assert own.workers == 1

    def test_threads_are_shared(self) -> None:
        assert [own.threads for own, _ in self.shares(workers=2, threads=6)] == [3, 3]
        assert [own.threads for own, _ in self.shares(workers=5, threads=2)] == [1] * 5
        assert [own.threads for own, _ in self.shares(workers=2, threads=64)] == [5, 5]

    def test_a_quota_binds_nothing_to_processors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cores, "quota_cores", lambda: 4)
        shared = self.shares(workers=2)
        assert [(own.threads, processors) for own, processors in shared] == [(2, None)] * 2
        with pytest.raises(InputError, match="got 5, but there are 4 cores"):
            self.shares(workers=5)

    def test_memory_is_shared_but_for_one_body(self) -> None:
        own, _ = self.shares(workers=4, cache_bytes=400, max_held_bytes=1 << 30)[0]
        assert (own.cache_bytes, own.max_held_bytes) == (100, 1 << 28)
        own, _ = self.shares(workers=10)[0]
        assert own.max_held_bytes == max((512 << 20) // 10, own.max_body_bytes)
        own, _ = self.shares(workers=4, max_body_bytes=1 << 29)[0]
        assert own.max_held_bytes == 1 << 29


class TestAllOrNone:
    """Two servers in this process, as the parts of one."""

    @pytest.fixture
    def parts(self, head_bundle: Path) -> Iterator[list[Server]]:
        settings = Settings(bundle=head_bundle, log="none", threads=1)
        with ExitStack() as stack:
            engines = [Engine.load(head_bundle, "onnxruntime", threads=1) for _ in range(2)]
            yield [stack.enter_context(closing(Server(one, settings))) for one in engines]

    @pytest.fixture
    def content(self, offline: Engine, tmp_path: Path) -> bytes:
        path = tmp_path / "tone.safetensors"
        write_head(random_head(offline.spec, task="tone"), path)
        return path.read_bytes()

    def test_what_one_cannot_read_none_has(
        self, parts: list[Server], content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = AllParts([server.part for server in parts], HeadFolder(None))
        with monkeypatch.context() as patch:
            patch.setattr(parts[1].engine, "read_head", _fail(HeadError("not this one")))
            with pytest.raises(HeadError, match="not this one"):
                whole.put_head("tone", content)
        assert not any("tone" in server.engine.tasks for server in parts)
        assert not any(server.part._read for server in parts)
        whole.put_head("tone", content)
        assert all("tone" in server.engine.tasks for server in parts)

    def test_what_cannot_be_kept_none_has(
        self,
        parts: list[Server],
        content: bytes,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole = AllParts([server.part for server in parts], HeadFolder(tmp_path / "kept"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", _fail(OSError(errno.ENOSPC, "No space left on device")))
            with pytest.raises(KeepError, match=r"cannot be kept .*No space left"):
                whole.put_head("tone", content)
        assert not any("tone" in server.engine.tasks for server in parts)
        assert not any(server.part._read for server in parts)
        with pytest.raises(UnknownTaskError):
            whole.delete_head("tone")

    def test_statistics_are_sums(self) -> None:
        empty = Statistics().show()
        one = {
            "last_inference": 5,
            "inference_count": 3,
            "execution_count": 2,
            "inference_stats": {name: {"count": 1, "ns": 7} for name in empty["inference_stats"]},
            "batch_stats": [
                {"batch_size": 1, "compute_infer": {"count": 1, "ns": 2}},
                {"batch_size": 2, "compute_infer": {"count": 1, "ns": 3}},
            ],
        }
        other = {**one, "last_inference": 4, "batch_stats": one["batch_stats"][1:]}
        both = summed([one, empty, other])
        assert (both["last_inference"], both["inference_count"], both["execution_count"]) == (
            *(5, 6),
            4,
        )
        assert both["inference_stats"]["queue"] == {"count": 2, "ns": 14}
        assert both["batch_stats"] == [
            {"batch_size": 1, "compute_infer": {"count": 1, "ns": 2}},
            {"batch_size": 2, "compute_infer": {"count": 2, "ns": 6}},
        ]
        assert summed([one]) == one


def _fail(error: Exception) -> Callable[..., None]:
    def failing(*_: object, **__: object) -> None:
        raise error

    return failing
