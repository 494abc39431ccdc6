"""The Open Inference Protocol over gRPC, by Triton's own client and by calls that cannot be."""

from __future__ import annotations

import gzip
import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import trustme
from conftest import ServerProcess, running, wait_for
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc
from tritonclient import grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

import bitheads.engine.serve.kserve
from bitheads import Engine
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.kserve.protobuf import METHODS, POOL, SERVICE, message

MODEL = "tiny"
TEXTS = ["The plot is thin, but what a cast!", "Why?", "Übermäßig 😀"]
INFER = f"/{SERVICE}/ModelInfer"
FOLDER = Path(bitheads.engine.serve.kserve.__file__).parent
KEY = "a-key-of-these-tests"


@pytest.fixture(scope="module")
def server(head_bundle: Path) -> Iterator[Server]:
    with running(head_bundle, grpc_port=0) as (_, server):
        yield server


@pytest.fixture
def client_of_triton(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(address(server)) as made:
        yield made


@pytest.fixture
def channel(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(address(server)) as made:
        yield made


def address(server: Server) -> str:
    assert server.grpc is not None
    return f"127.0.0.1:{server.grpc.port}"


def tensor(name: str, texts: list[str], shape: list[int] | None = None) -> Any:
    made = triton.InferInput(name, shape or [len(texts)], "BYTES")
    array = np.array([t.encode() for t in texts], object).reshape(shape or [len(texts)])
    made.set_data_from_numpy(array)
    return made


# What there is.


def test_the_descriptor_is_of_the_proto_beside_it(tmp_path: Path) -> None:
    made = tmp_path / "made.binpb"
    arguments = ["protoc", f"-I{FOLDER}", f"--descriptor_set_out={made}", "inference.proto"]
    assert protoc.main(arguments) == 0
    assert descriptor_pb2.FileDescriptorSet.FromString(
        made.read_bytes()
    ) == descriptor_pb2.FileDescriptorSet.FromString((FOLDER / "inference.binpb").read_bytes())


def test_messages_are_those_of_the_protocol() -> None:
    """Whatever is declared here is declared so in Triton's own files."""
    theirs: dict[str, Any] = {}
    for module in (service_pb2, model_config_pb2):
        theirs |= module.DESCRIPTOR.message_types_by_name
        theirs |= module.DESCRIPTOR.enum_types_by_name
    ours = POOL.FindFileByName("inference.proto")
    for name, described in ours.message_types_by_name.items():
        assert_part(described, theirs[name])
    for name, described in ours.enum_types_by_name.items():
        values = {(value.name, value.number) for value in theirs[name].values}
        assert {(value.name, value.number) for value in described.values} <= values
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in ours.services_by_name["GRPCInferenceService"].methods:
        other = service.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name


def assert_part(ours: Descriptor, theirs: Descriptor) -> None:
    def named(kind: Descriptor | EnumDescriptor | None) -> str | None:
        return None if kind is None else kind.full_name

    def shown(field: FieldDescriptor) -> tuple[object, ...]:
        kinds = (named(field.message_type), named(field.enum_type))
        return (field.number, field.type, field.is_repeated, *kinds)

    for field in ours.fields:
        assert shown(field) == shown(theirs.fields_by_name[field.name]), field.full_name
    for nested in ours.nested_types:
        assert_part(nested, theirs.nested_types_by_name[nested.name])


def test_health_and_metadata(client_of_triton: Any, server: Server) -> None:
    assert client_of_triton.is_server_live()
    assert client_of_triton.is_server_ready()
    assert client_of_triton.is_model_ready(MODEL)
    assert client_of_triton.is_model_ready(MODEL, "1")
    found = client_of_triton.get_server_metadata()
    assert found.name == "bitheads"
    assert "statistics" in found.extensions
    metadata = client_of_triton.get_model_metadata(MODEL)
    assert [item.name for item in metadata.inputs] == ["text", "text_pair"]
    outputs = {item.name: item for item in metadata.outputs}
    assert outputs["topic"].datatype == "BYTES"
    assert list(outputs["topic_probabilities"].shape) == [-1, 3]


def test_configuration_and_index(client_of_triton: Any) -> None:
    found = client_of_triton.get_model_config(MODEL, as_json=True)["config"]
    assert found["name"] == MODEL
    assert found["input"][0] == {"name": "text", "data_type": "TYPE_STRING", "dims": ["-1"]}
    assert found["input"][1]["optional"] is True
    outputs = {item["name"]: item for item in found["output"]}
    assert outputs["topic_probabilities"]["data_type"] == "TYPE_FP32"
    assert outputs["topic_probabilities"]["dims"] == ["-1", "3"]
    (model,) = client_of_triton.get_model_repository_index().models
    assert (model.name, model.version, model.state) == (MODEL, "1", "READY")


def test_statistics_count_what_was_asked(client_of_triton: Any) -> None:
    def statistics() -> Any:
        (found,) = client_of_triton.get_inference_statistics(MODEL).model_stats
        return found

    before = statistics()
    texts = ["Statistics of this text.", "And of this one, which is longer."]
    client_of_triton.infer(MODEL, [tensor("text", texts)])
    with pytest.raises(InferenceServerException):
        client_of_triton.infer(MODEL, [tensor("text", ["a" * 300_000])])
    after = statistics()
    assert after.inference_count - before.inference_count == 2
    assert after.execution_count - before.execution_count == 1
    old, new = before.inference_stats, after.inference_stats
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(new, stage).count - getattr(old, stage).count == 1
        assert getattr(new, stage).ns > getattr(old, stage).ns
    assert new.fail.count - old.fail.count == 1
    batches = {made.batch_size: made.compute_infer.count for made in after.batch_stats}
    assert sum(batches.values()) == after.execution_count
    assert time.time() - 60 < after.last_inference / 1000 < time.time() + 1
    assert client_of_triton.get_inference_statistics().model_stats[0].name == MODEL


def test_reflection_and_health_service(channel: Any) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    described = database.FindFileContainingSymbol(SERVICE)
    assert {method.name for method in described.service[0].method} == {*METHODS}
    assert database.FindFileContainingSymbol("grpc.health.v1.Health").package == "grpc.health.v1"
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


# Answers.


def test_infer(client_of_triton: Any, offline: Engine) -> None:
    names = ("topic", "topic_probabilities", "num_tokens", "codes")
    outputs = [triton.InferRequestedOutput(name) for name in names]
    found = client_of_triton.infer(MODEL, [tensor("text", TEXTS)], outputs=outputs, request_id="7")
    expected = offline.predict(TEXTS, ["topic"])["topic"]
    assert [label.decode() for label in found.as_numpy("topic")] == list(expected.top)
    probabilities = found.as_numpy("topic_probabilities")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)
    features = offline.encode(TEXTS)
    assert found.as_numpy("num_tokens").tolist() == features.num_tokens.tolist()
    assert b"".join(found.as_numpy("codes")) == features.codes.tobytes()
    answer = found.get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("7", MODEL, "1")


def test_pairs_and_all_outputs(client_of_triton: Any, offline: Engine) -> None:
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    inputs = [tensor("text", [a for a, _ in pairs]), tensor("text_pair", [b for _, b in pairs])]
    found = client_of_triton.infer(MODEL, inputs)
    assert {item.name for item in found.get_response().outputs} == {"same", "same_probabilities"}
    expected = offline.predict(pairs, ["same"])["same"]
    np.testing.assert_allclose(
        found.as_numpy("same_probabilities"), expected.probabilities, atol=1e-6
    )


def test_the_likeliest_labels(client_of_triton: Any, offline: Engine) -> None:
    expected = offline.predict(TEXTS, ["topic"])["topic"]
    for count in (1, 2, 3, 9):
        outputs = [triton.InferRequestedOutput("topic_probabilities", class_count=count)]
        found = client_of_triton.infer(MODEL, [tensor("text", TEXTS)], outputs=outputs)
        rows = found.as_numpy("topic_probabilities")
        assert rows.shape == (len(TEXTS), min(count, 3))
        for row, probabilities, top in zip(rows, expected.probabilities, expected.top, strict=True):
            parts = [cell.decode().split(":", 2) for cell in row]
            assert parts[0][2] == top
            for value, index, label in parts:
                assert label == expected.labels[int(index)]
                assert float(value) == pytest.approx(probabilities[int(index)], abs=2e-6)
            values = [float(value) for value, _, _ in parts]
            assert values == sorted(values, reverse=True)


def test_contents_of_messages_and_columns(channel: Any, offline: Engine) -> None:
    """Not every client sends raw bytes."""
    asked, answered = METHODS["ModelInfer"]
    request = asked(model_name=MODEL)
    request.inputs.add(name="text", datatype="BYTES", shape=[3, 1])
    request.inputs[0].contents.bytes_contents.extend(text.encode() for text in TEXTS)
    request.outputs.add(name="topic_probabilities")
    answer = answered.FromString(channel.unary_unary(INFER)(request.SerializeToString()))
    (raw,) = answer.raw_output_contents
    expected = offline.predict(TEXTS, ["topic"])["topic"].probabilities
    np.testing.assert_allclose(np.frombuffer(raw, np.float32).reshape(3, 3), expected, atol=1e-6)


def test_asynchronous_calls_share_batches(client_of_triton: Any, offline: Engine) -> None:
    texts = [f"Number {i} of many calls at the same time." for i in range(64)]
    expected = offline.predict(texts, ["topic"])["topic"]
    done: list[Future[Any]] = [Future() for _ in texts]

    def note(i: int, result: Any, error: Any) -> None:
        done[i].set_exception(error) if error else done[i].set_result(result)

    for i, text in enumerate(texts):
        client_of_triton.async_infer(
            MODEL,
            [tensor("text", [text])],
            callback=lambda result, error, i=i: note(i, result, error),
        )
    for i, future in enumerate(done):
        found = future.result(timeout=60).as_numpy("topic_probabilities")
        np.testing.assert_allclose(found[0], expected.probabilities[i], atol=1e-6)


# Errors.


def test_errors_are_told(client_of_triton: Any) -> None:
    def refused(
        match: str, status: str, inputs: list[Any], model: str = MODEL, **more: Any
    ) -> None:
        with pytest.raises(InferenceServerException, match=match) as error:
            client_of_triton.infer(model, inputs, **more)
        assert error.value.status() == f"StatusCode.{status}"

    text = [tensor("text", TEXTS)]
    outputs = [triton.InferRequestedOutput("none")]
    refused("model 'none' version '1'", "NOT_FOUND", text, "none")
    refused("version '3'", "NOT_FOUND", text, model_version="3")
    refused("no such head", "NOT_FOUND", text, outputs=outputs)
    pairs = [*text, tensor("text_pair", ["a"])]
    refused("got 1 texts for 3", "INVALID_ARGUMENT", pairs)
    for name in ("topic", "codes"):
        outputs = [triton.InferRequestedOutput(name, class_count=2)]
        refused("class_count 2, which is for", "INVALID_ARGUMENT", text, outputs=outputs)
    many = [tensor("text", ["a"] * 1001)]
    refused("--max-texts", "INVALID_ARGUMENT", many)
    shared = triton.InferInput("text", [1], "BYTES")
    shared.set_shared_memory("region", 8)
    refused("shares no memory", "INVALID_ARGUMENT", [shared])
    output = triton.InferRequestedOutput("topic")
    output.set_shared_memory("region", 8)
    refused("shares no memory", "INVALID_ARGUMENT", text, outputs=[output])
    with pytest.raises(InferenceServerException, match="model 'none'"):
        client_of_triton.get_model_metadata("none")


@pytest.mark.parametrize("name", ["x" * 5000, "😀" * 5000, "\n" * 5000])
def test_errors_fit_into_trailers(client_of_triton: Any, name: str) -> None:
    outputs = [triton.InferRequestedOutput(name)]
    with pytest.raises(InferenceServerException) as error:
        client_of_triton.infer(MODEL, [tensor("text", TEXTS)], outputs=outputs)
    assert error.value.status() == "StatusCode.NOT_FOUND"


def test_methods_that_are_not_there_are_named(client_of_triton: Any) -> None:
    with pytest.raises(InferenceServerException, match="shares no memory") as error:
        client_of_triton.register_system_shared_memory("region", "/key", 8)
    assert error.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException, match="RepositoryModelLoad: this server has no"):
        client_of_triton.load_model(MODEL)


def request(**changes: Any) -> Any:
    made = message("ModelInferRequest")(model_name=MODEL)
    fields = {"name": "text", "datatype": "BYTES", "shape": [1]} | changes.pop("input", {})
    made.inputs.add(**fields)
    made.raw_input_contents.append(changes.pop("raw", b"\1\0\0\0a"))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def requests_that_cannot_be() -> dict[str, tuple[bytes, str]]:
    three = request()
    for _ in range(2):
        three.inputs.add(name="text", datatype="BYTES", shape=[1])
    too_many_raw = request()
    too_many_raw.raw_input_contents.append(b"")
    no_inputs = message("ModelInferRequest")(model_name=MODEL)
    contents = request(raw=b"")
    del contents.raw_input_contents[:]
    bad_class = request()
    bad_class.outputs.add(name="topic_probabilities").parameters["classification"].int64_param = -1
    no_class = request()
    no_class.outputs.add(name="topic_probabilities").parameters["classification"].SetInParent()
    asked = request()
    for _ in range(20_000):
        asked.outputs.add(name="x")
    made = {
        "no message": (b"\xff\xff\xff", "not a inference.ModelInferRequest"),
        "three tensors": (three, "got 3 tensors"),
        "raw contents": (too_many_raw, "raw_input_contents: got 2"),
        "no inputs": (no_inputs, "expected a tensor 'text'"),
        "no contents": (contents, "got 0 strings"),
        "other name": (request(input={"name": "other"}), "expected tensors named"),
        "other type": (request(input={"datatype": "FP32"}), "got datatype 'FP32'"),
        "other shape": (request(input={"shape": [1, 2]}), "got shape"),
        "no shape": (request(input={"shape": []}), "got shape"),
        "negative": (request(input={"shape": [-1]}), "got shape"),
        "many dimensions": (request(input={"shape": [1] * 9}), "got shape"),
        "too few": (request(input={"shape": [2]}), "got 1 strings"),
        "too many": (request(raw=b"\0\0\0\0" * 2), "got more strings"),
        "within a length": (request(raw=b"\1\0"), "ends within a length"),
        "past the end": (request(raw=b"\2\0\0\0a"), "past the end"),
        "not text": (request(raw=b"\1\0\0\0\xff"), "not valid UTF-8"),
        "negative class_count": (bad_class, "got classification -1"),
        "no class_count": (no_class, "got classification None"),
        "outputs": (asked, "outputs: got 20000"),
    }
    return {
        name: (body if isinstance(body, bytes) else body.SerializeToString(), match)
        for name, (body, match) in made.items()
    }


@pytest.mark.parametrize("case", requests_that_cannot_be())
def test_messages_that_cannot_be(channel: Any, case: str) -> None:
    body, match = requests_that_cannot_be()[case]
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(INFER)(body)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert match in error.value.details()


MUTATED = int(os.environ.get("MUTATED_MESSAGES", "2000"))


def test_mutated_messages_are_answered_or_refused(channel: Any, client_of_triton: Any) -> None:
    """Any bytes, on every method: an answer, or an error that is the client's fault."""
    random_ = random.Random(0)
    full = request()
    full.outputs.add(name="topic_probabilities").parameters["classification"].int64_param = 2
    seeds = [full.SerializeToString(), *(body for body, _ in requests_that_cannot_be().values())]
    seeds = [seed for seed in seeds if len(seed) < 1000]
    methods = [INFER] * 8 + [f"/{SERVICE}/{name}" for name in METHODS]
    fine = {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }

    def mutate(_: int) -> tuple[str, bytes]:
        body = bytearray(random_.choice(seeds))
        for _ in range(random_.randint(1, 4)):
            at = random_.randrange(len(body) + 1)
            kind = random_.randrange(3)
            if kind == 0:
                body[at:at] = random_.randbytes(random_.randint(1, 8))
            elif kind == 1 and at < len(body):
                body[at] = random_.randrange(256)
            else:
                del body[at : at + random_.randint(1, 8)]
        return random_.choice(methods), bytes(body)

    def ask(case: tuple[str, bytes]) -> grpc.StatusCode:
        method, body = case
        return channel.unary_unary(method).with_call(body)[1].code()

    def status(case: tuple[str, bytes]) -> grpc.StatusCode:
        try:
            return ask(case)
        except grpc.RpcError as error:
            return error.code()

    found: set[grpc.StatusCode] = set()
    with ThreadPoolExecutor(8) as pool:
        found |= {*pool.map(status, map(mutate, range(MUTATED)))}
    assert found <= fine
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= found
    assert client_of_triton.is_server_ready()


# Limits.


def test_a_message_is_no_larger_than_it_may_be(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(INFER)(b"x" * ((1 << 20) + 1))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.value.details()


def test_compressed_messages_are_refused(server: Server) -> None:
    """A few bytes may be any number when they are decompressed."""
    options = [("grpc.default_compression_algorithm", 2)]
    assert len(gzip.compress(bytes(1 << 20))) < 2000
    with (
        grpc.insecure_channel(address(server), options) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        channel.unary_unary(INFER)(bytes(1 << 20), compression=grpc.Compression.Gzip)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def never() -> Iterator[bytes]:
    time.sleep(30)
    yield b""


def test_calls_whose_message_does_not_come_end(head_bundle: Path) -> None:
    with running(head_bundle, grpc_port=0, read_timeout_s=0.3) as (client, server):
        with grpc.insecure_channel(address(server)) as channel:
            with pytest.raises(grpc.RpcError) as error:
                channel.stream_unary(INFER)(never())
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "was not there after 0.3 s" in error.value.details()
            with pytest.raises(grpc.RpcError) as error:
                channel.stream_unary(INFER)(iter(()))
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        wait_for(lambda: count(client, "bitheads_requests_in_flight") == 1)  # that which asks
        wait_for(lambda: not server._admission._held_bytes)


def count(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_a_client_leaves_room_for_others(head_bundle: Path) -> None:
    """However many calls it makes that send nothing."""
    options: dict[str, Any] = {"grpc_max_message_bytes": 1 << 16, "max_held_bytes": 1 << 18}
    others = "a-key-of-somebody-else"
    with (
        running(head_bundle, grpc_port=0, api_keys=(KEY, others), **options) as (client, server),
        grpc.insecure_channel(address(server)) as channel,
    ):
        own = [("authorization", f"Bearer {KEY}")]
        calls = [channel.stream_unary(INFER).future(never(), metadata=own) for _ in range(8)]
        # Two of four places are for one client.
        wait_for(lambda: sum(call.done() for call in calls) == 6)
        codes = {call.code() for call in calls if call.done()}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        answer = channel.unary_unary(INFER)(
            request().SerializeToString(), metadata=[("authorization", f"Bearer {others}")]
        )
        assert answer
        headers = {"authorization": f"Bearer {others}"}
        assert client.post("/v1/predict", json={"inputs": ["a"]}, headers=headers).is_success
        for call in calls:
            call.cancel()


def test_connections_are_bounded(head_bundle: Path) -> None:
    """Else those of one client would take the files that HTTP needs."""
    live = f"/{SERVICE}/ServerLive"
    with running(head_bundle, grpc_port=0, max_connections=4) as (client, server):
        assert server.grpc is not None
        port = server.grpc.port
        opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]

        def closed() -> int:
            return sum(is_closed(connection) for connection in opened)

        wait_for(lambda: closed() == 8)
        assert client.get("/health/live").status_code == 200
        with grpc.insecure_channel(address(server)) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(live)(b"", timeout=5)
        for connection in opened:
            connection.close()
        with grpc.insecure_channel(address(server)) as channel:
            assert channel.unary_unary(live)(b"", wait_for_ready=True, timeout=60)


def is_closed(connection: socket.socket) -> bool:
    """By the other side: what a server sends first is not read."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_keys(head_bundle: Path) -> None:
    with (
        running(head_bundle, grpc_port=0, api_keys=(KEY,)) as (client, server),
        triton.InferenceServerClient(address(server)) as made,
    ):
        assert made.is_server_live()
        assert made.is_server_ready()
        text = [tensor("text", TEXTS)]
        for headers in (None, {"authorization": "Bearer another-key-of-tests"}):
            with pytest.raises(InferenceServerException, match="No valid key") as error:
                made.infer(MODEL, text, headers=headers)
            assert error.value.status() == "StatusCode.UNAUTHENTICATED"
            with pytest.raises(InferenceServerException, match="No valid key"):
                made.get_model_metadata(MODEL, headers=headers)
        found = made.infer(MODEL, text, headers={"authorization": f"Bearer {KEY}"})
        assert len(found.as_numpy("topic")) == 3
        assert count(client, 'bitheads_rejections_total{reason="unauthorized"}') == 4


def test_a_full_queue_is_told(head_bundle: Path) -> None:
    with (
        running(head_bundle, grpc_port=0, max_queue_tokens=16, cache_bytes=0) as (_, server),
        grpc.insecure_channel(address(server)) as channel,
    ):
        long = request(raw=b"")
        words = ("long " * 200).encode()
        long.inputs[0].shape[:] = [50]
        long.raw_input_contents[:] = [
            b"".join(
                (len(words) + 2).to_bytes(4, "little") + words + b"%02d" % i for i in range(50)
            )
        ]
        calls = [channel.unary_unary(INFER).future(long.SerializeToString()) for _ in range(16)]
        codes = {call.code() for call in calls}
        assert codes == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        refused = next(c for c in calls if c.code() is not grpc.StatusCode.OK)
        assert dict(refused.trailing_metadata())["retry-after"].isdigit()


def test_trailers_and_metrics(head_bundle: Path) -> None:
    with (
        running(head_bundle, grpc_port=0) as (client, server),
        grpc.insecure_channel(address(server)) as channel,
    ):
        _, call = channel.unary_unary(INFER).with_call(
            request().SerializeToString(), metadata=[("x-request-id", "mine-1")]
        )
        trailers = dict(call.trailing_metadata())
        assert trailers["x-request-id"] == "mine-1"
        assert "encode;dur=" in trailers["server-timing"]
        _, call = channel.unary_unary(INFER).with_call(
            request().SerializeToString(), metadata=[("x-request-id", 'a"b')]
        )
        assert len(dict(call.trailing_metadata())["x-request-id"]) == 32
        route = f'bitheads_requests_total{{route="{INFER}",status="200"}}'
        assert count(client, route) == 2


def test_a_client_that_leaves_is_let_go(head_bundle: Path) -> None:
    with (
        running(head_bundle, grpc_port=0) as (client, server),
        grpc.insecure_channel(address(server)) as channel,
    ):
        call = channel.stream_unary(INFER).future(never())
        wait_for(lambda: count(client, "bitheads_requests_in_flight") == 2)
        call.cancel()
        wait_for(lambda: count(client, 'bitheads_rejections_total{reason="cancelled"}') == 1)
        wait_for(lambda: not server._admission._held_bytes)  # with those of GET /metrics


# The process.


def test_draining_answers_what_was_taken(head_bundle: Path) -> None:
    with (
        running(head_bundle, grpc_port=0) as (_, server),
        triton.InferenceServerClient(address(server)) as made,
    ):
        assert made.is_server_ready()
        server.drain()
        assert not made.is_server_ready()
        assert made.is_server_live()
        assert made.get_model_repository_index().models[0].state == "UNAVAILABLE"
        with pytest.raises(InferenceServerException, match="shutting down") as error:
            made.infer(MODEL, [tensor("text", TEXTS)])
        assert error.value.status() == "StatusCode.UNAVAILABLE"


def test_tls(head_bundle: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    both = tmp_path / "both.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    with running(head_bundle, grpc_port=0, tls_cert=both) as (_, server):
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(address(server), credentials) as channel:
            assert channel.unary_unary(INFER)(request().SerializeToString())
        with grpc.insecure_channel(address(server)) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(INFER)(request().SerializeToString(), timeout=5)


def test_a_port_that_is_taken(head_bundle: Path, server: Server) -> None:
    import subprocess
    import sys

    assert server.grpc is not None
    arguments = ["--bundle", str(head_bundle), "--port", "0", "--grpc-port", str(server.grpc.port)]
    done = subprocess.run(
        [sys.executable, "-m", "bitheads", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "--grpc-port" in done.stderr
    assert "Choose another port" in done.stderr


def test_the_command_serves_both_and_ends_at_sigterm(head_bundle: Path) -> None:
    import re
    import signal

    arguments = ["--bundle", str(head_bundle), "--backend", "onnxruntime", "--grpc-port", "0"]
    with ServerProcess(*arguments) as process:
        wait_for(lambda: "gRPC on" in "\n".join(process.lines))
        found = re.search(r"gRPC on (127\.0\.0\.1:\d+)", "\n".join(process.lines))
        assert found is not None
        with triton.InferenceServerClient(found[1]) as made:
            answer = made.infer(head_bundle.name, [tensor("text", TEXTS)])
            assert len(answer.as_numpy("topic")) == 3
        assert httpx.get(f"{process.url}/health/live").status_code == 200
        assert process.end(signal.SIGTERM) == 0
        route = [line.get("route") for line in process.log()]
        assert INFER in route
