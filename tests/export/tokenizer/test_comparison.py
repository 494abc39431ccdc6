"""Tokenizers of every kind as graphs: the same ids on every odd text, or what differs is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.inputs.tokenizer_kinds import KINDS
from benchmarks.model_types.table import USUAL_TOKENIZER, USUALLY
from bitheads.export.errors import ExportError
from bitheads.export.tokenizer.comparison import SAME, Comparison, Kind, examine
from bitheads.export.tokenizer.odd_texts import tokenizer_texts

MARKS = {"combining marks", "any characters", "mixtures"}
TIES = {"long words", "mixtures", "signs and code"}
"""Texts with runs of one sign, which a vocabulary may cut at several places alike. Which they are
depends on the vocabulary, and that is of the manual of the Python that runs."""
UNIGRAM = MARKS | TIES | {"Chinese, Japanese, Korean"}
DIFFER = {
    "modernbert": MARKS,
    "gpt_neox": MARKS,
    "qwen": MARKS,
    "xlm-roberta": UNIGRAM,
    "camembert": UNIGRAM,
    "t5": UNIGRAM,
    "deberta-v2": UNIGRAM,
    "albert": TIES,
    "rembert": UNIGRAM | {"line breaks"},
    "big_bird": TIES,
}
"""Kind of tokenizer -> the texts of which some have other ids; of all other kinds none has."""


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_tokenizer(kind: str, saved: Path) -> None:
    KINDS[kind]().save_pretrained(saved / kind)
    found = examine(saved / kind / "tokenizer.json")
    assert found.texts > 3000
    assert {row.name for row in found.differing} <= DIFFER.get(kind, set())
    assert (found.verdict == SAME) == (kind not in DIFFER)
    assert found.same >= 0.97 * found.texts
    assert found.kinds[0] == Kind("sentences", 520, 520)


def test_every_type_has_a_kind() -> None:
    assert {USUALLY, *USUAL_TOKENIZER.values()} <= set(KINDS)


def test_what_cannot_be_converted_is_refused(saved: Path) -> None:
    """A pre-tokenizer that openvino-tokenizers does not know."""
    from tokenizers import pre_tokenizers

    tokenizer = KINDS["bert"]()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    tokenizer.save_pretrained(saved / "scripts")
    with pytest.raises(
        ExportError, match=r"openvino-tokenizers cannot convert it .*UnicodeScripts"
    ):
        examine(saved / "scripts" / "tokenizer.json")


@cache
def odd() -> dict[str, list[str]]:
    return tokenizer_texts(Tokenizer.from_str(KINDS["roberta"]().backend_tokenizer.to_str()))


def test_texts_are_odd_in_many_ways() -> None:
    assert sum(map(len, odd().values())) > 2500
    assert "" in odd()["single characters"]
    assert "tide<mask>out" in odd()["its own tokens"]
    every = [text for texts in odd().values() for text in texts]
    for piece in ("\0", "\u200d", "\u2028", "\ufffd", "\u0301\u0301", "N'T", "\t\t", "\r\n", "  "):
        assert any(piece in text for text in every), piece
    assert max(map(len, every)) >= 1400


def test_a_row_shows_where_ids_part() -> None:
    row = Kind("blanks", 9, 7, " a\n", tuple(range(20)), (*range(12), 99))
    assert str(row) == (
        "blanks: 2 of 9, such as ' a\\n', from id 11 on [11, 12, 13, 14, 15, 16, 17, 18], "
        "expected [11, 99]"
    )
    assert Comparison((row, Kind("tabs", 3, 3))).verdict == "2 of 9 blanks"
    cut = Kind("blanks", 9, 7, "a", (1, 2), (1, 2, 3))
    assert "from id 1 on [2], expected [2, 3]" in str(cut)
