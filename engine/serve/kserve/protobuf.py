"""The messages of `inference.proto`, in a pool of their own.

Clients in the same process bring the same names in files of their own, which one pool would refuse.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

SERVICE = "inference.GRPCInferenceService"


def _load() -> DescriptorPool:
    described = files("bitheads.engine.serve.kserve").joinpath("inference.binpb").read_bytes()
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(described).file:
        pool.Add(file)
    return pool


POOL = _load()


def message(name: str) -> Any:
    """The class of that name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


METHODS: dict[str, tuple[Any, Any]] = {
    method.name: (message(method.input_type.name), message(method.output_type.name))
    for method in POOL.FindServiceByName(SERVICE).methods
}
"""By name: the classes of what is asked and answered."""
