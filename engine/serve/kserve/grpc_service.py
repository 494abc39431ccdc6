"""The Open Inference Protocol over gRPC: its messages to the model's texts, and back."""

from __future__ import annotations

from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from bitheads import __version__
from bitheads.engine.errors import InputError
from bitheads.engine.serve.kserve.inputs import (
    Asked,
    check_count,
    check_memory,
    check_tensor,
    decode,
    read_classes,
    read_strings,
    texts_of,
)
from bitheads.engine.serve.kserve.model import EXTENSIONS, PLATFORM, VERSION, Inferred, Model
from bitheads.engine.serve.kserve.protobuf import METHODS
from bitheads.engine.serve.visit import Visit
from bitheads.engine.serve.work import Work
from bitheads.engine.types import Text

MOST_INPUTS, MOST_ASKED = 2, 16_384
"""Tensors of a request, and outputs that it asks for, at most."""

INFER = "ModelInfer"
OPEN = ("ServerLive", "ServerReady")
"""Methods that need no key."""


class InferenceService:
    """Answers a method's message with another. Not concerned with who asks, and how often."""

    def __init__(self, work: Work, model: Model) -> None:
        self._work = work
        self._model = model

    async def answer(self, method: str, body: bytes, visit: Visit) -> bytes:
        """The answer's message.

        Args:
            method: of METHODS.
            body: its message.

        Raises HttpError.
        """
        asked, answered = METHODS[method]
        if method == INFER:
            return await self._infer(body, asked, answered, visit)
        request = await self._work.read(visit.client, body, 0, partial(_parse, asked, body))
        message: bytes = answered(**await self._told(method, request)).SerializeToString()
        return message

    async def _told(self, method: str, request: Any) -> dict[str, Any]:
        """The fields of an answer that needs no encoder. Raises HttpError."""
        model = self._model
        if method == "ServerLive":
            return {"live": model.is_live()}
        if method == "ServerReady":
            return {"ready": model.is_ready()}
        if method == "ServerMetadata":
            return {"name": PLATFORM, "version": __version__, "extensions": EXTENSIONS}
        if method == "RepositoryIndex":
            return {"models": model.index(request.ready)}
        if method == "ModelStatistics" and not request.name:
            return {"model_stats": await model.model_statistics()}
        model.check(request.name, request.version)
        if method == "ModelReady":
            return {"ready": model.is_ready()}
        if method == "ModelConfig":
            return {"config": model.configuration()}
        if method == "ModelStatistics":
            return {"model_stats": await model.model_statistics()}
        metadata = model.metadata()
        for kind in ("inputs", "outputs"):  # the message has no more fields
            metadata[kind] = [
                {field: tensor[field] for field in ("name", "datatype", "shape")}
                for tensor in metadata[kind]
            ]
        return metadata

    async def _infer(self, body: bytes, asked: Any, answered: Any, visit: Visit) -> bytes:
        read = partial(_read, asked, body, self._model.max_texts)
        request, texts, wanted = await self._work.read(visit.client, body, 0, read)
        self._model.check(request.model_name, request.model_version)
        inferred = await self._model.infer(texts, wanted, visit)
        make = partial(_write, inferred, answered, self._model.name, request.id)
        return await self._model.write(inferred, visit.client, make)


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InputError(f"body: not a {kind.DESCRIPTOR.full_name} ({error}).") from error


def _read(kind: Any, body: bytes, max_texts: int) -> tuple[Any, list[Text], list[Asked] | None]:
    """The message, the texts and the outputs that are asked for, None for the tasks' all."""
    request = _parse(kind, body)
    raw = request.raw_input_contents
    if len(request.inputs) > MOST_INPUTS:
        raise InputError(
            f"inputs: got {len(request.inputs)} tensors, expected {MOST_INPUTS} at most."
        )
    if raw and len(raw) != len(request.inputs):
        raise InputError(
            f"raw_input_contents: got {len(raw)}, expected none, or one for each of "
            f"{len(request.inputs)} inputs."
        )
    tensors: dict[str, list[str]] = {}
    for i, tensor in enumerate(request.inputs):
        shape = list(tensor.shape[:3])
        count = check_tensor(tensor.name, tensor.datatype, shape, tensor.parameters, max_texts)
        if raw:
            strings = read_strings(memoryview(raw[i]), tensor.name, count)
        else:
            parts = tensor.contents.bytes_contents[: count + 1]
            strings = [decode(part, tensor.name) for part in parts]
        check_count(tensor.name, strings, shape)
        tensors[tensor.name] = strings
    return request, texts_of(tensors), _asked(request.outputs)


def _asked(outputs: Any) -> list[Asked] | None:
    if not outputs:
        return None
    if len(outputs) > MOST_ASKED:
        raise InputError(f"outputs: got {len(outputs)}, expected {MOST_ASKED} at most.")
    found = {}
    for output in outputs:
        check_memory(output.name, output.parameters)
        given = {name: _value(of) for name, of in output.parameters.items()}
        found[output.name] = Asked(output.name, read_classes(output.name, given))
    return list(found.values())


def _value(parameter: Any) -> Any:
    chosen = parameter.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(parameter, chosen)


def _write(inferred: Inferred, kind: Any, model: str, request_id: str) -> bytes:
    """All outputs in raw_output_contents, as Triton does."""
    made = kind(model_name=model, model_version=VERSION, id=request_id)
    for output, _ in inferred.outputs():
        made.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        made.raw_output_contents.append(output.raw)
    message: bytes = made.SerializeToString()
    return message
