"""Every file that an ONNX graph reads is found, wherever and however its name is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitheads.engine.files.external_files import external_files

KEY = b"\x0a\x08location"


def beside(name: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "weights")
    onnx.external_data_helper.set_external_data(tensor, name, offset=0, length=12)
    tensor.ClearField("raw_data")
    return tensor


def in_initializer(name: str) -> onnx.GraphProto:
    return helper.make_graph([], "g", [], [], [beside(name)])


def in_attribute(name: str) -> onnx.GraphProto:
    node = helper.make_node("Constant", [], ["c"], value=beside(name))
    return helper.make_graph([node], "g", [], [])


def in_branch(name: str) -> onnx.GraphProto:
    node = helper.make_node("If", ["c"], ["d"], then_branch=in_attribute(name))
    return helper.make_graph([node], "g", [], [])


def in_sparse(name: str) -> onnx.GraphProto:
    indices = numpy_helper.from_array(np.zeros(3, np.int64), "indices")
    sparse = helper.make_sparse_tensor(beside(name), indices, [9])
    return helper.make_graph([], "g", [], [], sparse_initializer=[sparse])


@pytest.mark.parametrize("make", [in_initializer, in_attribute, in_branch, in_sparse])
def test_names_are_found(make: Callable[[str], onnx.GraphProto], tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(helper.make_model(make("a.bin")).SerializeToString())
    assert external_files(path) == {"a.bin"}


def as_message(*entry: bytes) -> bytes:
    """A model whose one initializer has this entry."""
    content = b"".join(entry)
    for tag in (0x6A, 0x2A, 0x3A):  # of the tensor, of the graph, of the model
        content = bytes([tag, len(content)]) + content
    return content


@pytest.mark.parametrize(
    "entry",
    [
        [KEY, b"\x12\x05a.bin"],
        [b"\x12\x05a.bin", KEY],
        [b"\x0a\x01x", KEY, b"\x12\x05a.bin"],
        [b"\x0a\x88\x00location\x12\x85\x80\x00a.bin"],
        [b"\x92\x00\x05a.bin", b"\x8a\x00\x08location"],
    ],
    ids=["as onnx writes it", "its name first", "two keys", "long sizes", "long tags"],
)
def test_forms_that_protobuf_reads(entry: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(as_message(*entry))
    read = onnx.load(path, load_external_data=False).graph.initializer[0].external_data[0]
    assert (read.key, read.value) == ("location", "a.bin")
    assert external_files(path) == {"a.bin"}


def test_of_two_names_none_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(as_message(KEY, b"\x12\x05a.bin", b"\x12\x05b.bin"))
    assert external_files(path) == {"a.bin", "b.bin"}


def test_the_word_elsewhere_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    node = helper.make_node("Identity", ["location"], ["out"], name="location", doc_string="x")
    graph = helper.make_graph([node], "location", [], [])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert external_files(path) == set()


@pytest.mark.parametrize(
    "content", [KEY + b"\x12\xff", b"location", b"\x3a\x7flocation", b"\x3b" + KEY]
)
def test_what_is_no_protobuf_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"number|field"):
        external_files(path)
