"""The Open Inference Protocol over HTTP.

With Triton's binary tensor extension, which `tritonclient` uses unless told otherwise.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from bitheads import __version__
from bitheads.engine.errors import InputError
from bitheads.engine.serve.described import json_body
from bitheads.engine.serve.errors import of_engine
from bitheads.engine.serve.kserve import described
from bitheads.engine.serve.kserve.inputs import (
    Asked,
    check_count,
    check_memory,
    check_tensor,
    read_classes,
    read_strings,
    texts_of,
)
from bitheads.engine.serve.kserve.model import EXTENSIONS, PLATFORM, VERSION, Inferred, Model
from bitheads.engine.serve.messages import to_json
from bitheads.engine.serve.work import Work
from bitheads.engine.types import Text

HEADER_LENGTH = "inference-header-content-length"
"""Bytes of the JSON before the binary tensors."""

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


def routes(work: Work, model: Model) -> APIRouter:
    """All under /v2."""
    router = APIRouter(prefix="/v2", default_response_class=Response)
    named = Path(description="The model's name.", examples=[model.name])
    described_infer: dict[str, Any] = {
        "response_model": None,
        "responses": {**ANSWER, **ERRORS},
        "openapi_extra": json_body(described.InferRequest),
    }

    def answers(kind: Any, with_404: bool = True) -> dict[str, Any]:
        errors = FOUND if with_404 else {401: ERRORS[401]}
        return {"response_model": None, "responses": {200: {"model": kind}, **errors}}

    @router.get("", **answers(described.ServerMetadata, False))
    async def server() -> Response:
        """The server's name and version."""
        return _json({"name": PLATFORM, "version": __version__, "extensions": EXTENSIONS})

    @router.get("/health/live", response_model=None, responses=LIVE)
    async def live() -> Response:
        """200 as long as the process can answer at all."""
        return Response(status_code=200 if model.is_live() else 503)

    @router.get("/health/ready", response_model=None, responses=READY)
    async def ready() -> Response:
        """200 if requests are taken, 503 while the server shuts down."""
        return Response(status_code=200 if model.is_ready() else 503)

    # Before /models/{name}, which would take it for a model's name.
    @router.get("/models/stats", **answers(described.Statistics, False))
    async def all_statistics() -> Response:
        """What requests took so far: those of all protocols."""
        return _json({"model_stats": await model.model_statistics()})

    @router.get("/models/{name}/stats", **answers(described.Statistics))
    @router.get("/models/{name}/versions/{version}/stats", **answers(described.Statistics))
    async def statistics(name: str = named, version: str = VERSION) -> Response:
        """The same, of one model."""
        model.check(name, version)
        return _json({"model_stats": await model.model_statistics()})

    @router.get("/models/{name}", **answers(described.ModelMetadata))
    @router.get("/models/{name}/versions/{version}", **answers(described.ModelMetadata))
    async def metadata(name: str = named, version: str = VERSION) -> Response:
        """The model's inputs and outputs."""
        model.check(name, version)
        return _json(model.metadata())

    @router.get("/models/{name}/config", **answers(described.ModelConfiguration))
    @router.get("/models/{name}/versions/{version}/config", **answers(described.ModelConfiguration))
    async def configuration(name: str = named, version: str = VERSION) -> Response:
        """The same as Triton's model configuration."""
        model.check(name, version)
        return _json(model.configuration())

    @router.get("/models/{name}/ready", response_model=None, responses={**FOUND, **READY})
    @router.get(
        "/models/{name}/versions/{version}/ready", response_model=None, responses={**FOUND, **READY}
    )
    async def model_ready(name: str = named, version: str = VERSION) -> Response:
        """200 if requests are taken, 503 while the server shuts down."""
        model.check(name, version)
        return Response(status_code=200 if model.is_ready() else 503)

    @router.post(
        "/repository/index",
        **answers(described.Index, False),
        openapi_extra=json_body(described.IndexRequest),
    )
    async def index(request: Request) -> Response:
        """The models of this server: one."""
        body = await request.body()
        client = request.scope["visit"].client
        ready = await work.read(client, body, len(body), partial(_read_ready, body))
        return _json(model.index(ready))

    @router.post("/models/{name}/infer", **described_infer)
    @router.post("/models/{name}/versions/{version}/infer", **described_infer)
    async def infer(request: Request, name: str = named, version: str = VERSION) -> Response:
        """Texts in, labels and probabilities of every task out."""
        model.check(name, version)
        body = await request.body()
        length = _json_bytes(body, request.headers.get(HEADER_LENGTH))
        visit = request.scope["visit"]
        header, texts, wanted, all_binary = await work.read(
            visit.client, body, length, partial(_read, body, length, model.max_texts)
        )
        inferred = await model.infer(texts, wanted, visit)
        make = partial(_answer, inferred, all_binary, model.name, header.get("id"))
        return await model.write(inferred, visit.client, make)

    return router


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
) -> tuple[dict[str, Any], list[Text], list[Asked] | None, bool]:
    """The JSON part, the texts, and what `_asked` says. Raises InputError or HttpError."""
    header = _read_object(body[:length])
    return header, _read_inputs(header, memoryview(body)[length:], max_texts), *_asked(header)


def _read_object(text: bytes) -> dict[str, Any]:
    try:
        # UTF-8 alone, as its values were counted: json would find out that it is UTF-16.
        found = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"body: not valid JSON ({error}).") from error
    return found if isinstance(found, dict) else {}


def _read_ready(body: bytes) -> bool:
    """Whether only models are asked for that are ready. An empty body asks for all."""
    return bool(body) and _read_object(body).get("ready") is True


def _read_inputs(header: dict[str, Any], binary: memoryview, max_texts: int) -> list[Text]:
    if not isinstance(header.get("inputs"), list):
        raise InputError("inputs: expected a list of tensors.")
    tensors: dict[str, list[str]] = {}
    for tensor in header["inputs"]:
        name, expected, size = _check_input(tensor, max_texts)
        if size is None:
            strings = _flat(tensor.get("data"), name)
        elif len(binary) < size:
            raise InputError(f"{name}: got {len(binary)} bytes, expected binary_data_size {size}.")
        else:
            strings = read_strings(binary[:size], name, expected)
            binary = binary[size:]
        check_count(name, strings, tensor["shape"])
        tensors[name] = strings
    if binary:
        raise InputError("inputs: got bytes after the last tensor, expected none.")
    return texts_of(tensors)


def _check_input(tensor: Any, max_texts: int) -> tuple[str, int, int | None]:
    """Its name, its texts, and its binary size, None where it is in JSON."""
    tensor = tensor if isinstance(tensor, dict) else {}
    name, parameters = tensor.get("name"), _parameters(tensor)
    shape = tensor.get("shape")
    count = check_tensor(name, tensor.get("datatype"), shape, parameters, max_texts)
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise InputError(f"{name}: got binary_data_size {size!r}, expected a number of bytes.")
    return str(name), count, size


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _flat(data: Any, name: str) -> list[str]:
    if isinstance(data, list) and all(isinstance(row, list) for row in data):
        data = [item for row in data for item in row]
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise InputError(f"{name}: expected `data`, a list of strings.")
    return data


def _asked(header: dict[str, Any]) -> tuple[list[Asked] | None, bool]:
    """The outputs that are asked for, None for the tasks' all; and whether all are in binary."""
    all_binary = _parameters(header).get("binary_data_output") is True
    asked = header.get("outputs")
    if not asked:
        return None, all_binary
    if not isinstance(asked, list):
        raise InputError("outputs: expected a list.")
    found = {}
    for output in asked:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InputError("outputs: expected a name for each.")
        name, parameters = output["name"], _parameters(output)
        check_memory(name, parameters)
        is_binary = parameters.get("binary_data", all_binary) is True
        found[name] = Asked(name, read_classes(name, parameters), is_binary)
    return list(found.values()), all_binary


def _answer(inferred: Inferred, all_binary: bool, model: str, request_id: Any) -> Response:
    tensors: list[dict[str, Any]] = []
    raw = []
    for output, is_binary in inferred.outputs():
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.shape,
        }
        if is_binary or (inferred.wanted is None and all_binary):
            tensor["parameters"] = {"binary_data_size": len(output.raw)}
            raw.append(output.raw)
        else:
            tensor["data"] = output.values
        tensors.append(tensor)
    header: dict[str, Any] = {"model_name": model, "model_version": VERSION, "outputs": tensors}
    if isinstance(request_id, str):
        header["id"] = request_id
    text = to_json(header)
    headers = {"server-timing": inferred.done.timing}
    if not raw:
        return Response(text, 200, headers, "application/json")
    headers[HEADER_LENGTH] = str(len(text))
    return Response(b"".join([text, *raw]), 200, headers, "application/octet-stream")


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
