"""Background texts: those that are none of a head's business, from which it learns to say so."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bitheads.engine.errors import InputError
from bitheads.engine.texts.tables import QUOTES_OPTION, check_utf8
from bitheads.engine.texts.text_files import lines_of
from bitheads.engine.types import Text
from bitheads.training.data.columns import choose_texts
from bitheads.training.data.rows import format_of, read_bytes, read_rows


@dataclass(frozen=True)
class Background:
    """One file of texts.

    Attributes:
        texts: strings, or pairs of strings; none is blank.
        form: "single" or "pair".
        sha256: of the file's bytes, as of LabelledTexts: the same for the same file.
    """

    path: Path
    texts: list[Text]
    form: str
    sha256: str

    def __len__(self) -> int:
        return len(self.texts)


def read_background(
    path: Path, quotes: str | None = None, option: str = QUOTES_OPTION
) -> Background:
    """Reads plain lines (.txt), or the column text of what `read_labelled` reads.

    Texts that are blank are left out.

    Args:
        quotes, option: see `read_labelled`; said of all files, they are for those that are TSV or
            CSV.

    Raises InputError, with the line, for anything malformed, and for a file without texts.
    """
    texts: list[Text]
    if path.suffix.lower() == ".txt":
        data = read_bytes(path)
        check_utf8(path, data)
        texts, form, sha256 = [*lines_of(data)], "single", hashlib.sha256(data).hexdigest()
    else:
        is_delimited = format_of(path) in ("tsv", "csv")
        rows = read_rows(path, choose_texts, quotes if is_delimited else None, option)
        texts, form, sha256 = rows.texts(), rows.columns.form, rows.sha256
    texts = [text for text in texts if any(part.strip() for part in parts_of(text))]
    if not texts:
        raise InputError(f"{path}: has no texts, expected one per line. Add some.")
    return Background(path, texts, form, sha256)


def parts_of(text: Text) -> tuple[str, ...]:
    """One, or the two of a pair."""
    return (text,) if isinstance(text, str) else text
