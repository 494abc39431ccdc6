"""Writing the tokenizer's graph: compared first, kept apart from the bundle's manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_encoders import corpus
from tokenizers import Tokenizer

from bitheads import BundleError, Engine
from bitheads.engine.bundle import MANIFEST, TOKENIZER
from bitheads.export import host_tokenizer
from bitheads.export.errors import ExportError
from bitheads.export.host_tokenizer import main, run_graph, write_host_tokenizer


def test_the_command_writes_a_graph_of_the_same_ids(
    own_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = (own_bundle / MANIFEST).read_bytes()
    assert main(["--bundle", str(own_bundle)]) == 0
    assert "token ids of 520 of 520 texts" in capsys.readouterr().out
    assert (own_bundle / MANIFEST).read_bytes() == manifest
    assert len(Engine.load(own_bundle).encode(["text"])) == 1
    texts = [*corpus()[:50], "", "a\ue000b \ufffd c"]
    own = Tokenizer.from_file(str(own_bundle / TOKENIZER))
    expected = [own.encode(text, add_special_tokens=False).ids for text in texts]
    got = run_graph(own_bundle / "host" / "tokenizer.xml", texts)
    assert [ids.tolist() for ids in got] == expected
    assert main(["--bundle", str(own_bundle)]) == 1
    assert "Pass --force" in capsys.readouterr().err
    assert main(["--bundle", str(own_bundle), "--force"]) == 0


def test_the_template_is_written_out(host_bundle: Path) -> None:
    description = json.loads((host_bundle / "host" / "tokenizer_graph.json").read_text())
    assert description["single"] == {"own": [[2], [3]], "own_types": [0, 0], "text_types": [0]}
    pair = {"own": [[2], [3], [3]], "own_types": [0, 0, 1], "text_types": [0, 1]}
    assert description["pair"] == pair
    assert description["agreement"] == {"texts": 520, "same": 520}


def test_other_ids_are_refused(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host_tokenizer, "run_graph", lambda graph, texts: run_graph(graph, [*texts[1:], "other"])
    )
    with pytest.raises(ExportError, match=r"token ids of 0 of 2 texts .* --min-agreement"):
        write_host_tokenizer(own_bundle, ["one", "two"])
    assert not (own_bundle / "host").exists()


def test_no_bundle_and_no_package(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json"):
        write_host_tokenizer(tmp_path / "none", ["one"])
    monkeypatch.setattr(host_tokenizer, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install 'bitheads\[host\]'"):
        write_host_tokenizer(own_bundle, ["one"])
