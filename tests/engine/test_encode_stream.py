"""Texts without end: in chunks, in order, never read far ahead, and nothing of them kept."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_encode import bits_that_differ, texts_of_all_lengths

from bitheads import Engine, InputError, PackedFeatures


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return Engine.load(tiny_bundle, backend="onnxruntime")


class Source:
    """Endless texts, counted."""

    def __init__(self) -> None:
        self.num_read = 0
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[str]:
        while True:
            self.threads.add(threading.get_ident())
            self.num_read += 1
            yield f"boat {self.num_read} lay on its side"


@pytest.mark.parametrize("chunk_texts", [1, 7, 80, 1000])
def test_a_stream_gives_what_encode_gives(engine: Engine, chunk_texts: int) -> None:
    texts = texts_of_all_lengths()
    parts = list(engine.encode_stream(iter(texts), chunk_texts, max_batch_tokens=1))
    assert [len(part) for part in parts[:-1]] == [chunk_texts] * (len(parts) - 1)
    together = PackedFeatures.concat(parts)
    assert bits_that_differ(together, engine.encode(texts, max_batch_tokens=1)) == 0
    assert together.stats.num_texts == len(texts)


def test_no_texts_give_no_parts(engine: Engine) -> None:
    assert list(engine.encode_stream([])) == []


def test_texts_are_read_a_chunk_ahead_by_the_callers_thread(engine: Engine) -> None:
    source = Source()
    stream = engine.encode_stream(source, chunk_texts=3)
    assert source.num_read == 0
    for chunk in range(4):
        assert len(next(stream)) == 3
        assert source.num_read == 3 * (chunk + 2)
    stream.close()
    assert source.num_read == 15
    assert source.threads == {threading.get_ident()}
    assert not any(thread.name.startswith("tokenize") for thread in threading.enumerate())


def test_nothing_is_kept_of_what_was_taken(engine: Engine) -> None:
    class Text(str):
        pass

    alive: weakref.WeakSet[Text] = weakref.WeakSet()

    def texts() -> Iterator[str]:
        for i in range(60):
            text = Text(f"boat {i}")
            alive.add(text)
            yield text

    most = 0
    for part in engine.encode_stream(texts(), chunk_texts=4):
        del part
        gc.collect()
        most = max(most, len(alive))
    assert most <= 4 * 2 + 1


def test_an_error_of_the_iterable_is_the_callers(engine: Engine) -> None:
    def texts() -> Iterator[str]:
        yield from ["one", "two", "three"]
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        list(engine.encode_stream(texts(), chunk_texts=2))


def test_what_is_no_text_is_named_with_its_index_in_the_stream(engine: Engine) -> None:
    stream = engine.encode_stream(["a", "b", "c", 4, "e"], chunk_texts=2)  # type: ignore[list-item]
    assert len(next(stream)) == 2
    with pytest.raises(InputError, match="text 3: got int"):
        next(stream)


@pytest.mark.parametrize(
    "texts",
    [{"a": 1}, None, b"hello", bytearray(b"hello"), 5, np.zeros((2, 2)), np.array(5)],
    ids=repr,
)
def test_what_gives_no_texts_is_refused_at_once(engine: Engine, texts: Any) -> None:
    with pytest.raises(InputError, match=r"texts: got .*, expected an iterable of texts\. Pass "):
        engine.encode_stream(texts)


def test_any_iterable_of_texts_is_read(engine: Engine) -> None:
    for texts in ({"a tide"}, ("a tide",), np.array(["a tide"]), {1: "a tide"}.values()):
        assert sum(len(part) for part in engine.encode_stream(texts)) == 1


def test_options_are_checked_at_once(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"got one string \('hello'\).*Pass \[text\]"):
        engine.encode_stream("hello")
    with pytest.raises(InputError, match="chunk_texts: got 0, expected at least 1"):
        engine.encode_stream(["text"], chunk_texts=0)


def test_progress_goes_to_standard_error(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    list(engine.encode_stream(["a", "b", "c"], chunk_texts=2, progress=True))
    assert "3text" in capsys.readouterr().err
