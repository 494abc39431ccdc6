"""The server's benchmark: the load's own arithmetic, and that it runs from end to end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.options import command
from benchmarks.serve import load, measure, table
from benchmarks.serve.requests import KNOWN, repeating
from bitheads.engine.process.cores import count_cores

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def answers_of(replies: list[bytes], **request: Any) -> dict[str, Any]:
    """A load on a socket that answers each request with the next of the replies, the last ever."""

    async def run() -> dict[str, Any]:
        left = list(replies)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                try:
                    await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(4)
                except asyncio.IncompleteReadError:
                    break
                reply = left.pop(0) if len(left) > 1 else left[0]
                if not reply:
                    break
                writer.write(reply)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        made = {"host": "127.0.0.1", "port": port, "path": "/", "bodies": [("body", 3)]}
        found = await asyncio.to_thread(load.measure, {**made, **request})
        server.close()
        return found

    return asyncio.run(run())


def test_clients_that_wait() -> None:
    found = answers_of([ANSWER], kind="closed", clients=3, seconds=0.2)
    assert found["statuses"] == {"200": len(found["times_s"])}
    assert found["texts"] == 3 * len(found["times_s"]) > 30
    assert found["seconds"] >= 0.2


def test_what_is_refused_has_no_time() -> None:
    found = answers_of([BUSY, b"", ANSWER], kind="closed", clients=1, seconds=0.2)
    assert found["statuses"]["429"] == 1
    assert found["statuses"]["closed"] == 1
    assert found["statuses"]["200"] == len(found["times_s"]) > 3


def test_requests_that_come_regardless() -> None:
    found = answers_of([ANSWER], kind="open", per_s=500, seconds=0.5)
    assert 150 < found["statuses"]["200"] < 350


def test_texts_that_come_again() -> None:
    known, asked = repeating(["one", "two"], 0.5, 1000)
    assert len({*known}) == len(known) == KNOWN
    again = [body for body in asked if body in {*known}]
    others = [body for body in asked if body not in {*known}]
    assert 400 < len(again) < 600
    assert len({*others}) == len(others) == 1000 - len(again)
    assert {len(body) for body, _ in [*known, *asked]} == {len(known[0][0])}


def test_a_quick_run_from_end_to_end(
    head_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "CLIENTS", (1, 3))
    options = ["serve", "--quick", "--bundle", str(head_bundle)]
    assert command_line.main(options) == 0
    assert not list(tmp_path.glob("*.json"))
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = stored["result"]
    assert [row["clients"] for row in result["closed"]] == [1, 3, 1, 3]
    assert [row["texts_a_request"] for row in result["closed"]] == [1, 1, 16, 16]
    for row in result["closed"]:
        assert row["statuses"] == {"200": row["requests"]}
        assert 0 < row["ms"]["p50"] <= row["ms"]["p95"] <= row["ms"]["p99"]
    assert [row["texts_a_request"] for row in result["grpc"]] == [1, 16]
    for row in result["grpc"]:
        assert row["statuses"] == {"200": row["requests"]}
        assert row["requests"] > 0
    assert result["exit_code"] == 0
    some = [(row["processes"], row["share"]) for row in result["repeated"]]
    several = [(2, 0.0), (2, 1.0)] if result["threads"] >= 2 and count_cores() >= 2 else []
    assert some == [(1, 0.0), (1, 0.2), (1, 0.5), (1, 1.0), *several]
    for row in result["repeated"]:
        assert row["statuses"] == {"200": row["requests"]}
    shown = table.measured(stored)
    assert "| 3 clients | 16 |" in shown
    assert "| 3 clients over gRPC | 16 |" in shown
    assert "| 3 clients, 20% asked before | 1 |" in shown
    assert ("| 3 clients, 100% asked before, 2 processes | 1 |" in shown) == bool(several)
    assert "C++ host" not in shown
    host = {"backend": "openvino fp32", "closed": result["closed"]}
    shown = table.measured({**stored, "result": {**result, "host": host, "host_shared": host}})
    assert "| C++ host in process, 3 threads | 16 |" in shown
    assert "| C++ host sharing batches, 3 threads | 16 |" in shown


def test_without_heads_there_is_nothing_to_serve(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["serve", "--quick", "--bundle", str(tiny_bundle)]) == 1
    assert "has no heads" in capsys.readouterr().err


def test_options_are_part_of_the_command() -> None:
    words = "serve --threads 1 --seconds 3"
    options = command_line._parser().parse_args(words.split())
    assert command("serve", options) == f"python -m benchmarks {words}"
