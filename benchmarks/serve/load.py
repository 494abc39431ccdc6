"""The load: closed (clients that wait for their answer) or open (requests that come regardless).

A process of its own. Of an open load a request's time counts from when it was to be sent, also when
the server was too slow to take it: else slow servers would be asked less, and look better.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.processes import child

GIVE_UP_S = 120.0
INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass
class Seen:
    """What came of the requests.

    Attributes:
        times_s: of those that were answered with 200.
        statuses: how often each; "closed" where the connection ended without an answer.
    """

    times_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    texts: int = 0

    def note(self, status: str, took_s: float, texts: int) -> None:
        self.statuses[status] += 1
        if status == "200":
            self.times_s.append(took_s)
            self.texts += texts


class Connection:
    """One keep-alive connection, opened when it is first needed."""

    def __init__(self, host: str, port: int, from_host: str | None = None) -> None:
        """from_host: one of this machine's addresses; a server takes each for another client."""
        self._address = host, port
        self._from = None if from_host is None else (from_host, 0)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> str:
        """Sends a whole request, reads a whole answer; returns its status."""
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # the server had closed it, as it does with idle ones: no request is lost
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address, local_addr=self._from)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower().split(b"\r\n")
            length = next(int(f[15:]) for f in fields if f.startswith(b"content-length:"))
            await reader.readexactly(length)
            if b"connection: close" in fields:
                self.close()
            return fields[0].split()[1].decode()
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return "closed"

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class GrpcConnection:
    """A channel of its own, and one call at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._address = f"{host}:{port}"
        self._channel: Any = None

    async def ask(self, request: bytes) -> str:
        """Sends a message, reads the answer; returns the status as HTTP has it, or its name."""
        import grpc

        if self._channel is None:
            # Else channels to one address share a connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            self._channel = grpc.aio.insecure_channel(self._address, options)
        try:
            await self._channel.unary_unary(INFER)(request)
        except grpc.aio.AioRpcError as error:
            name: str = error.code().name
            return "429" if name == "RESOURCE_EXHAUSTED" else name
        return "200"

    def close(self) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().create_task(self._channel.close())


Client = Connection | GrpcConnection


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a load and says what came of it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is an open file
    bodies = [(body.encode(), texts) for body, texts in request["bodies"]]
    host, port = request["host"], request["port"]
    open_connection: Callable[[], Client]
    if request.get("protocol") == "grpc":
        requests = [(_message(body, request["model"]), texts) for body, texts in bodies]
        open_connection = partial(GrpcConnection, host, port)
    else:
        requests = [(_request(body, request["path"], host), texts) for body, texts in bodies]
        open_connection = partial(Connection, host, port, request.get("from_host"))
    load: Awaitable[tuple[Seen, float]]
    if request["kind"] == "closed":
        load = _closed(requests, open_connection, request["clients"], request["seconds"])
    else:
        load = _open(requests, open_connection, request["per_s"], request["seconds"])
    seen, took_s = asyncio.run(_await(load))
    return {
        "seconds": took_s,
        "times_s": seen.times_s,
        "statuses": dict(seen.statuses),
        "texts": seen.texts,
    }


async def _await(load: Awaitable[tuple[Seen, float]]) -> tuple[Seen, float]:
    return await load


def _request(body: bytes, path: str, host: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _message(body: bytes, model: str) -> bytes:
    """The same texts for gRPC."""
    from bitheads.engine.serve.kserve.protobuf import METHODS

    inputs = json.loads(body)["inputs"]
    parts = [text.encode() for text in ([inputs] if isinstance(inputs, str) else inputs)]
    made = METHODS["ModelInfer"][0](model_name=model)
    made.inputs.add(name="text", datatype="BYTES", shape=[len(parts)])
    made.raw_input_contents.append(b"".join(struct.pack("<I", len(p)) + p for p in parts))
    message: bytes = made.SerializeToString()
    return message


async def _closed(
    requests: list[tuple[bytes, int]],
    open_connection: Callable[[], Client],
    clients: int,
    seconds: float,
) -> tuple[Seen, float]:
    """Every client goes round the requests from a place of its own."""
    seen = Seen()
    started_s = time.perf_counter()

    async def client(first: int) -> None:
        connection = open_connection()
        i = first
        while time.perf_counter() - started_s < seconds:
            content, texts = requests[i % len(requests)]
            i += 1
            sent_s = time.perf_counter()
            status = await connection.ask(content)
            seen.note(status, time.perf_counter() - sent_s, texts)
        connection.close()

    step = max(1, len(requests) // clients)
    await asyncio.gather(*(client(step * i) for i in range(clients)))
    return seen, time.perf_counter() - started_s


async def _open(
    requests: list[tuple[bytes, int]],
    open_connection: Callable[[], Client],
    per_s: float,
    seconds: float,
) -> tuple[Seen, float]:
    """Poisson arrivals; each takes a free connection or opens one."""
    seen = Seen()
    draw = random.Random(0)
    free: list[Client] = []
    running: set[asyncio.Task[None]] = set()

    async def ask(due_s: float, content: bytes, texts: int) -> None:
        connection = free.pop() if free else open_connection()
        try:
            status = await asyncio.wait_for(connection.ask(content), GIVE_UP_S)
        except asyncio.TimeoutError:
            status = "no answer"
        seen.note(status, time.perf_counter() - due_s, texts)
        if status in ("no answer", "closed"):
            connection.close()
        else:
            free.append(connection)

    started_s = due_s = time.perf_counter()
    i = 0
    while due_s - started_s < seconds:
        wait_s = due_s - time.perf_counter()
        await asyncio.sleep(max(0.0, wait_s))
        content, texts = requests[i % len(requests)]
        i += 1
        task = asyncio.create_task(ask(due_s, content, texts))
        running.add(task)
        task.add_done_callback(running.discard)
        due_s += draw.expovariate(per_s)
    if running:
        await asyncio.wait(running)
    for connection in free:
        connection.close()
    return seen, time.perf_counter() - started_s


if __name__ == "__main__":
    child.answer(lambda request: json.loads(json.dumps(measure(request))))
