"""`bitheads store`: info, verify, compact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from store_cases import contents, expected, fill, make_spec

from bitheads.engine.commands.store import main
from bitheads.engine.store import FeatureStore


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    assert main(["info", "--json", str(tmp_path)]) == 0
    info = json.loads(capsys.readouterr().out)
    files = sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
    tokens = sum(map(len, expected().values())) // 8
    assert (info["rows"], info["parts"], info["bytes"]) == (60, 3, files)
    assert (info["tokens"], info["spec_id"]) == (tokens, make_spec().id)
    assert info["code_bytes_a_text"] == pytest.approx(8 * tokens / 60)
    assert main(["info", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"60 texts, {tokens} tokens, 3 parts" in shown
    assert make_spec().id in shown


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    assert main(["verify", str(tmp_path)]) == 0
    assert "3 parts are sound" in capsys.readouterr().out
    path = min(tmp_path.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["verify", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert f"{path.name}: was changed after it was written" in shown
    assert "error: " in shown


def test_verify_finds_an_id_that_is_there_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = fill(tmp_path, parts=1)
    (path,) = tmp_path.glob("*.parquet")
    (tmp_path / "part-00000009-copy.parquet").write_bytes(path.read_bytes())
    assert len(store.parts) == 1
    assert main(["verify", str(tmp_path)]) == 1
    assert "id 'text-0' is there twice" in capsys.readouterr().err


def test_compact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    assert main(["compact", str(tmp_path), "--part-mb", "1"]) == 0
    assert "3 parts before, 1 now" in capsys.readouterr().out
    assert contents(FeatureStore(tmp_path)) == expected()


@pytest.mark.parametrize("command", ["info", "verify", "compact"])
def test_no_store(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "absent")]) == 1
    assert "error: " in capsys.readouterr().err
    for size in ("0.0", "nan", "inf"):
        assert main(["compact", str(tmp_path), "--part-mb", size]) == 1
        assert f"--part-mb: got {size}" in capsys.readouterr().err
