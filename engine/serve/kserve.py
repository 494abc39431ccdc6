"""The Open Inference Protocol (KServe v2), which clients of Triton and KServe speak.

One model. Its inputs are `text` and, for pairs, `text_pair`; its outputs are those of each task and
the codes, see `kserve_outputs`. With Triton's binary tensor extension, which `tritonclient` uses
unless told otherwise.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from bitheads import __version__
from bitheads.engine.errors import BitheadsError, InputError, UnknownTaskError
from bitheads.engine.heads.head import Head
from bitheads.engine.serve import kserve_messages as described
from bitheads.engine.serve.described import json_body
from bitheads.engine.serve.errors import HttpError, of_engine, too_large
from bitheads.engine.serve.kserve_outputs import (
    CODES,
    NUM_TOKENS,
    Output,
    described_outputs,
    names_of,
    outputs_of,
    outputs_of_codes,
    task_of,
)
from bitheads.engine.serve.messages import to_json
from bitheads.engine.serve.work import Answered, Work, answer_bytes
from bitheads.engine.types import Text

HEADER_LENGTH = "inference-header-content-length"
"""Bytes of the JSON before the binary tensors."""

TEXT, PAIR = "text", "text_pair"
PLATFORM = "bitheads"
VERSION = "1"

TENSOR_BYTES, MOST_OUTPUTS = 256, 5
"""Bytes of an output in JSON beside its values, and outputs of a task, both at most."""

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": described.Error, "description": "Not a request of HTTP that can be read"},
    401: {"model": described.Error, "description": "A key is needed"},
    404: {"model": described.Error, "description": "No such model, version or output"},
    408: {"model": described.Error, "description": "The body came too slowly"},
    413: {"model": described.Error, "description": "Too large"},
    422: {"model": described.Error, "description": "Not what is expected"},
    429: {"model": described.Error, "description": "The queue is full; see Retry-After"},
    503: {"model": described.Error, "description": "Shutting down, or not in time"},
}
FOUND: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (401, 404)}
LIVE: dict[int | str, dict[str, Any]] = {
    503: {"description": "No: the server cannot answer any more, and ends"}
}
READY: dict[int | str, dict[str, Any]] = {503: {"description": "No: the server shuts down"}}
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": described.InferResponse, "content": {"application/octet-stream": {}}}
}


def routes(
    work: Work, model: str, is_live: Callable[[], bool], is_ready: Callable[[], bool]
) -> APIRouter:
    """
    Args:
        model: its name in the paths.
        is_live: whether requests can be answered at all.
        is_ready: whether requests are taken.
    """
    router = APIRouter(prefix="/v2", default_response_class=Response)
    named = Path(description="The model's name.", examples=[model])
    described_model: dict[int | str, dict[str, Any]] = {
        200: {"model": described.ModelMetadata},
        **FOUND,
    }
    described_infer: dict[str, Any] = {
        "response_model": None,
        "responses": {**ANSWER, **ERRORS},
        "openapi_extra": json_body(described.InferRequest),
    }

    @router.get(
        "",
        response_model=None,
        responses={200: {"model": described.ServerMetadata}, 401: ERRORS[401]},
    )
    async def server() -> Response:
        """The server's name and version."""
        return _json(
            {"name": PLATFORM, "version": __version__, "extensions": ["binary_tensor_data"]}
        )

    @router.get("/health/live", response_model=None, responses=LIVE)
    async def live() -> Response:
        """200 as long as the process can answer at all."""
        return Response(status_code=200 if is_live() else 503)

    @router.get("/health/ready", response_model=None, responses=READY)
    async def ready() -> Response:
        """200 if requests are taken, 503 while the server shuts down."""
        return Response(status_code=200 if is_ready() else 503)

    @router.get("/models/{name}", response_model=None, responses=described_model)
    @router.get("/models/{name}/versions/{version}", response_model=None, responses=described_model)
    async def metadata(name: str = named, version: str = VERSION) -> Response:
        """The model's inputs and outputs."""
        _check_name(name, version, model)
        return _json(_metadata(work, model))

    @router.get("/models/{name}/ready", response_model=None, responses={**FOUND, **READY})
    @router.get(
        "/models/{name}/versions/{version}/ready", response_model=None, responses={**FOUND, **READY}
    )
    async def model_ready(name: str = named, version: str = VERSION) -> Response:
        """200 if requests are taken, 503 while the server shuts down."""
        _check_name(name, version, model)
        return Response(status_code=200 if is_ready() else 503)

    @router.post("/models/{name}/infer", **described_infer)
    @router.post("/models/{name}/versions/{version}/infer", **described_infer)
    async def infer(request: Request, name: str = named, version: str = VERSION) -> Response:
        """Texts in, labels and probabilities of every task out."""
        _check_name(name, version, model)
        body = await request.body()
        length = _json_bytes(body, request.headers.get(HEADER_LENGTH))
        client = request.scope["visit"].client
        header, texts, wanted, is_binary = await work.read(
            client, body, length, partial(_read, body, length, work.max_texts)
        )
        loaded = _loaded(work)
        tasks = None if wanted is None else _tasks_of(wanted, loaded)
        wants_codes = wanted is not None and bool({CODES, NUM_TOKENS} & {*wanted})
        done = await work.encode(texts, tasks, wants_codes, request.scope["visit"])

        def make() -> Response:
            outputs = list(_outputs(done, loaded, wanted))
            return _answer(outputs, is_binary, model, header.get("id"), done.timing)

        return await work.run(client, _answer_bytes(done), make)

    return router


def _check_name(name: str, version: str, model: str) -> None:
    if name != model or version != VERSION:
        raise HttpError(
            404,
            "unknown_model",
            f"model {name!r} version {version!r}: expected {model!r} version {VERSION!r}.",
        )


def _metadata(work: Work, model: str) -> dict[str, Any]:
    loaded = _loaded(work)
    outputs = [
        made for _, head in sorted(loaded.items()) for made in described_outputs(head, loaded)
    ]
    outputs += [
        {"name": CODES, "datatype": "BYTES", "shape": [-1]},
        {"name": NUM_TOKENS, "datatype": "INT64", "shape": [-1]},
    ]
    return {
        "name": model,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [
            {"name": TEXT, "datatype": "BYTES", "shape": [-1]},
            {"name": PAIR, "datatype": "BYTES", "shape": [-1], "optional": True},
        ],
        "outputs": outputs,
    }


def _json_bytes(body: bytes, header_length: str | None) -> int:
    """Where the JSON ends. Raises HttpError."""
    if header_length is None:
        return len(body)
    if re.fullmatch("[0-9]{1,18}", header_length) and int(header_length) <= len(body):
        return int(header_length)
    error = f"{HEADER_LENGTH}: got {header_length!r}, expected at most {len(body)}, the body's."
    raise of_engine(InputError(error))


def _read(
    body: bytes, length: int, max_texts: int
) -> tuple[dict[str, Any], list[Text], list[str] | None, dict[str, bool]]:
    """The JSON part, the texts, and what `_asked` says. Raises InputError or HttpError."""
    header, texts = _read_inputs(body, length, max_texts)
    return header, texts, *_asked(header)


def _read_inputs(body: bytes, length: int, max_texts: int) -> tuple[dict[str, Any], list[Text]]:
    try:
        # UTF-8 alone, as its values were counted: json would find out that it is UTF-16.
        header = json.loads(body[:length].decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"body: not valid JSON ({error}).") from error
    if not isinstance(header, dict) or not isinstance(header.get("inputs"), list):
        raise InputError("inputs: expected a list of tensors.")
    binary = memoryview(body)[length:]
    tensors: dict[str, list[str]] = {}
    for tensor in header["inputs"]:
        name, size = _check_input(tensor)
        expected = math.prod(tensor["shape"])
        if expected > max_texts:
            raise too_large(name, f"{expected} texts", str(max_texts), "--max-texts")
        if size is None:
            strings = _flat(tensor.get("data"), name)
        else:
            # One too many says it as well as millions.
            strings = list(islice(_strings(binary[:size], size, name), expected + 1))
            binary = binary[size:]
        if len(strings) != expected:
            raise InputError(
                f"{name}: got {'more' if len(strings) > expected else len(strings)} strings, "
                f"expected shape {tensor['shape']}."
            )
        tensors[name] = strings
    if TEXT not in tensors or binary:
        raise InputError(f"inputs: expected a tensor {TEXT!r} and no bytes after the last tensor.")
    if PAIR not in tensors:
        return header, list(tensors[TEXT])
    if len(tensors[PAIR]) != len(tensors[TEXT]):
        raise InputError(
            f"{PAIR}: got {len(tensors[PAIR])} texts for {len(tensors[TEXT])} in {TEXT!r}."
        )
    return header, list(zip(tensors[TEXT], tensors[PAIR], strict=True))


def _check_input(tensor: Any) -> tuple[str, int | None]:
    """Its name and its binary size, None where it is in JSON."""
    if not isinstance(tensor, dict) or tensor.get("name") not in (TEXT, PAIR):
        raise InputError(f"inputs: expected tensors named {TEXT!r} and {PAIR!r}.")
    name, shape = str(tensor["name"]), tensor.get("shape")
    if tensor.get("datatype") != "BYTES":
        raise InputError(f"{name}: got datatype {tensor.get('datatype')!r}, expected 'BYTES'.")
    if not _is_shape(shape):
        raise InputError(f"{name}: got shape {shape!r}, expected [texts] or [texts, 1].")
    parameters = tensor.get("parameters", {})
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (type(size) is not int or size < 0):
        raise InputError(f"{name}: got binary_data_size {size!r}, expected a number of bytes.")
    return name, size


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= 2
        and all(type(size) is int and 0 <= size <= 1 << 31 for size in shape)
        and shape[1:] in ([], [1])
    )


def _flat(data: Any, name: str) -> list[str]:
    if isinstance(data, list) and all(isinstance(row, list) for row in data):
        data = [item for row in data for item in row]
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise InputError(f"{name}: expected `data`, a list of strings.")
    return data


def _strings(binary: memoryview, size: int, name: str) -> Iterator[str]:
    """Each is its length, four bytes, little endian, and so many bytes of UTF-8."""
    if len(binary) < size:
        raise InputError(f"{name}: got {len(binary)} bytes, expected binary_data_size {size}.")
    start = 0
    while start < size:
        if start + 4 > size:
            raise InputError(f"{name}: ends within a length.")
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if start + length > size:
            raise InputError(f"{name}: a string of {length} bytes goes past the end.")
        try:
            yield str(binary[start : start + length], "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: not valid UTF-8 ({error}).") from error
        start += length


def _asked(header: dict[str, Any]) -> tuple[list[str] | None, dict[str, bool]]:
    """The names that are asked for, None for the tasks' all; and which of them in binary."""
    parameters = header.get("parameters") or {}
    all_binary = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    asked = header.get("outputs")
    if not asked:
        return None, {"": all_binary}
    if not isinstance(asked, list):
        raise InputError("outputs: expected a list.")
    is_binary = {"": all_binary}
    for output in asked:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InputError("outputs: expected a name for each.")
        more = output.get("parameters") or {}
        binary = more.get("binary_data") if isinstance(more, dict) else None
        is_binary[output["name"]] = all_binary if binary is None else binary is True
    return [name for name in is_binary if name], is_binary


def _loaded(work: Work) -> dict[str, Head]:
    """The heads by task; a snapshot. Raises HttpError."""
    try:
        return {head.task: head for head in work.engine.choose_heads(None)}
    except BitheadsError as error:
        raise of_engine(error) from error


def _tasks_of(wanted: Sequence[str], loaded: Mapping[str, Head]) -> list[str]:
    """The tasks whose outputs are asked for. Raises HttpError for an output that a task has not."""
    tasks = []
    for name in wanted:
        if name in (CODES, NUM_TOKENS):
            continue
        tasks.append(task := task_of(name, loaded))
        head = loaded.get(task)  # of one that is not there the engine says so
        if head is not None and name not in (names := names_of(head, loaded)):
            raise of_engine(
                UnknownTaskError(
                    f"output {name!r}: the head of task {task!r} has none of that name, expected "
                    f"one of {names}."
                )
            )
    return list(dict.fromkeys(tasks))


def _outputs(
    done: Answered, loaded: Mapping[str, Head], wanted: Sequence[str] | None
) -> Iterator[Output]:
    """A request's texts are all single, or all pairs: no task leaves one out."""
    for task, prediction in done.answer.predictions.items():
        yield from outputs_of(task, prediction, loaded, wanted)
    if done.answer.features is not None and wanted is not None:
        yield from (o for o in outputs_of_codes(done.answer.features) if o.name in wanted)


def _answer_bytes(done: Answered) -> int:
    """Bytes of an answer with all outputs there are, in JSON, at most."""
    predictions, features = done.answer.predictions, done.answer.features
    size = answer_bytes(predictions, True) + MOST_OUTPUTS * TENSOR_BYTES * (1 + len(predictions))
    return size if features is None else size + 3 * features.nbytes + 64 * len(features)


def _answer(
    outputs: Sequence[Output],
    is_binary: dict[str, bool],
    model: str,
    request_id: Any,
    timing: str,
) -> Response:
    tensors: list[dict[str, Any]] = []
    raw = []
    for output in outputs:
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.shape,
        }
        if is_binary.get(output.name, is_binary[""]):
            tensor["parameters"] = {"binary_data_size": len(output.raw)}
            raw.append(output.raw)
        else:
            tensor["data"] = output.values
        tensors.append(tensor)
    header: dict[str, Any] = {"model_name": model, "model_version": VERSION, "outputs": tensors}
    if isinstance(request_id, str):
        header["id"] = request_id
    text = to_json(header)
    headers = {"server-timing": timing}
    if not raw:
        return Response(text, 200, headers, "application/json")
    headers[HEADER_LENGTH] = str(len(text))
    return Response(b"".join([text, *raw]), 200, headers, "application/octet-stream")


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
