"""The table of characters, read by the operation that it is made for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import openvino_tokenizers
from openvino import opset15

from bitheads.engine.sessions.openvino_core import the_core
from bitheads.export.tokenizer.charsmap import charsmap


def normalized(table: Mapping[str, str], texts: Sequence[str]) -> list[str]:
    """The texts as CharsMapNormalization makes them."""
    from openvino_tokenizers.tokenizer_pipeline import CharsmapStep

    core = the_core()
    core.add_extension(str(openvino_tokenizers._ext_path))
    given = opset15.parameter(openvino.PartialShape([-1]), openvino.Type.string)
    step = CharsmapStep(
        charsmap=charsmap(table), normalization_form="", remove_extra_whitespaces=False
    )
    found: list[Any] = step.get_ov_subgraph(opset15.string_tensor_unpack(given).outputs())
    model = openvino.Model([opset15.string_tensor_pack(*found[:3]).output(0)], [given])
    return [str(text) for text in core.compile_model(model, "CPU")(openvino.Tensor(texts))[0]]


def replaced(table: Mapping[str, str], text: str) -> str:
    """The longest key at each place is replaced, and nothing else."""
    done, place, longest = "", 0, max(map(len, table))
    while place < len(text):
        for length in range(longest, 0, -1):
            if text[place : place + length] in table:
                done += table[text[place : place + length]]
                place += length
                break
        else:
            done += text[place]
            place += 1
    return done


def test_keys_are_replaced_and_nothing_else() -> None:
    draw = random.Random(0)
    alphabet = [chr(draw.choice((0x21, 0x300, 0x4E00, 0x1F600)) + i) for i in range(400)]
    keys = {"".join(draw.choices(alphabet, k=draw.randint(1, 3))) for _ in range(3000)}
    table = {key: "".join(draw.choices(alphabet, k=draw.randint(0, 3))) for key in sorted(keys)}
    texts = ["".join(draw.choices([*alphabet, " "], k=30)) for _ in range(500)]
    expected = [replaced(table, text) for text in texts]
    assert normalized(table, texts) == expected
    assert np.mean([text != done for text, done in zip(texts, expected, strict=True)]) > 0.9


def test_what_is_of_no_key_stays() -> None:
    """A NUL, and bytes that begin keys but are none."""
    table = {"ab": "x", "\u00e9": "e", "\U0001f600": ":"}
    text = "a\u00e8b \U0001f601 ab a\u0000b\u00e9"
    assert normalized(table, [text, "b"]) == ["a\u00e8b \U0001f601 x a\u0000be", "b"]
