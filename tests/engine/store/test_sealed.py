"""Damaged parts: an error each time, never a crash, never a wrong row."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from store_cases import contents, expected, fill, make_features, make_spec

from bitheads import BitheadsError, StoreError
from bitheads.engine.store import FeatureStore, StoreWriter, sealed, verify

MUTATIONS = int(os.environ.get("STORE_MUTATIONS", "300"))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small file has many."""
    monkeypatch.setattr(sealed, "BLOCK_BYTES", 512)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """One of the ways in which files are damaged."""
    at = chance.randrange(len(content))
    kind = chance.randrange(7)
    if kind == 0:  # a bit
        return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
    if kind == 1:  # a lost end
        return content[:at]
    if kind == 2:  # a block of zeros
        size = chance.randrange(1, 2000)
        return content[:at] + bytes(len(content[at : at + size])) + content[at + size :]
    if kind == 3:  # noise
        size = chance.randrange(1, 200)
        return content[:at] + chance.randbytes(len(content[at : at + size])) + content[at + size :]
    if kind == 4:  # something between
        return content[:at] + chance.randbytes(chance.randrange(1, 100)) + content[at:]
    if kind == 5:  # something missing
        return content[:at] + content[at + chance.randrange(1, 100) :]
    tail = max(0, len(content) - chance.randrange(1, 4000))  # in the footer
    return content[:tail] + bytes([content[tail] ^ chance.randrange(1, 256)]) + content[tail + 1 :]


def read_into(found: dict[str, bytes], folder: Path) -> None:
    """What comes before an error is kept."""
    for rows in FeatureStore(folder).scan():
        for name, features in zip(rows.ids.to_pylist(), rows.features, strict=True):
            found[name] = features.codes.tobytes()


@pytest.mark.usefixtures("small_blocks")
def test_mutated_parts(tmp_path: Path) -> None:
    """STORE_MUTATIONS and STORE_SEED make longer runs."""
    fill(tmp_path, parts=1, row_group_bytes=300)
    (path,) = tmp_path.glob("*.parquet")
    content = path.read_bytes()
    chance = random.Random(int(os.environ.get("STORE_SEED", "0")))
    for _ in range(MUTATIONS):
        damaged = mutate(content, chance)
        if damaged == content:
            continue
        path.write_bytes(damaged)
        found: dict[str, bytes] = {}
        with pytest.raises(BitheadsError, match="part-"):
            read_into(found, tmp_path)
        assert found.items() <= expected(1).items()
        assert len(verify(tmp_path)) == 1
    path.write_bytes(content)
    assert contents(FeatureStore(tmp_path)) == expected(1)


@pytest.mark.usefixtures("small_blocks")
def test_every_byte_is_under_a_checksum(tmp_path: Path) -> None:
    fill(tmp_path, parts=1)
    (path,) = tmp_path.glob("*.parquet")
    content = path.read_bytes()
    for at in range(0, len(content), 1 if MUTATIONS > 1000 else 37):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert len(verify(tmp_path)) == 1


def test_sound_row_groups_before_a_damaged_one_are_right(tmp_path: Path) -> None:
    fill(tmp_path, parts=2)
    first, second = sorted(tmp_path.glob("*.parquet"))
    content = second.read_bytes()
    second.write_bytes(content[:100] + b"x" + content[101:])
    scan = FeatureStore(tmp_path).scan()
    assert len(next(scan)) == 20
    with pytest.raises(
        StoreError, match=rf"{second.name}: was changed after it was written: block 0"
    ):
        next(scan)
    (wrong,) = verify(tmp_path)
    assert second.name in wrong
    first.unlink()
    assert len(verify(tmp_path)) == 1


def test_a_block_that_is_read_in_pieces(tmp_path: Path) -> None:
    fill(tmp_path, parts=1)
    part = FeatureStore(tmp_path).parts[0]
    (path,) = tmp_path.glob("*.parquet")
    content = path.read_bytes()
    with part._folder.open(part.name) as file:
        footer = sealed.read_footer(file, "part")
        checked = sealed.CheckedFile(file, footer, "part")
        body = content[: footer.body_bytes]
        assert bytes(checked.read()) == body
        assert checked.tell() == len(body)
        assert bytes(checked.read(5)) == b""
        for start, count in ((0, 1), (3, 7), (len(body) - 2, 50), (100, 0)):
            checked.seek(start)
            assert bytes(checked.read(count)) == body[start : start + count]
        checked.seek(-8, 2)
        assert checked.tell() == len(content) - 8
        assert checked.size() == len(content)


@pytest.mark.parametrize("name", ["bitheads-seal-1", "bitheads-seal-" + "0" * 64])
def test_ids_and_columns_that_read_as_a_seal(tmp_path: Path, name: str) -> None:
    """The footer has the least and greatest id of each row group, and the names of the columns."""
    spec = make_spec()
    features = make_features(spec, 1)
    with StoreWriter(FeatureStore(tmp_path, spec)) as writer:
        writer.append([name], features, {name: ["x"]})
    assert contents(FeatureStore(tmp_path)) == {name: features.codes.tobytes()}
    assert verify(tmp_path) == []
