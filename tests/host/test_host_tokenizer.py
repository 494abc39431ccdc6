"""Writing the tokenizer's graph: compared first, kept apart from the bundle's manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_encoders import corpus
from tokenizers import Tokenizer

from bitheads import BundleError, Engine
from bitheads.engine.bundle import MANIFEST, TOKENIZER
from bitheads.export.errors import ExportError
from bitheads.export.host_tokenizer import main, write_host_tokenizer
from bitheads.export.tokenizer import comparison, graph
from bitheads.export.tokenizer.graph import run_graph


def test_the_command_writes_a_graph_of_the_same_ids(
    own_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = (own_bundle / MANIFEST).read_bytes()
    assert main(["--bundle", str(own_bundle)]) == 0
    same, texts = re.findall(r"token ids of (\d+) of (\d+) texts", capsys.readouterr().out)[0]
    assert int(same) == int(texts) > 3000
    assert (own_bundle / MANIFEST).read_bytes() == manifest
    assert len(Engine.load(own_bundle).encode(["text"])) == 1
    texts = [*corpus()[:50], "", "a\ue000b \ufffd c", "a\0"]
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
    agreement = description["agreement"]
    assert agreement["same"] == agreement["texts"] > 3000


def test_other_ids_are_refused(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(graph: Path, texts: Sequence[str]) -> list[Any]:
        """As a graph would that has no Chinese, and splits nothing off an apostrophe."""
        return run_graph(graph, [text.replace("\u4e2d", "").replace("'", "") for text in texts])

    monkeypatch.setattr(comparison, "run_graph", changed)
    with pytest.raises(ExportError) as raised:
        write_host_tokenizer(own_bundle, ["one", "it's"])
    said = str(raised.value)
    table = re.findall(r"^  (.*): (\d+) of (\d+), such as (.*), from id", said, re.M)
    assert ("sentences", "1", "2", '"it\'s"') in table
    assert {"contractions", "Chinese, Japanese, Korean", "mixtures"} < {kind for kind, *_ in table}
    assert "emoji" not in {kind for kind, *_ in table}
    assert "pass --min-agreement" in said
    assert not (own_bundle / "host").exists()
    report = write_host_tokenizer(own_bundle, ["one", "it's"], min_agreement=0.5)
    assert report["differing"]["sentences"]["example"] == "it's"
    assert report["same"] < report["texts"]


def test_no_bundle_and_no_package(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json"):
        write_host_tokenizer(tmp_path / "none", ["one"])
    monkeypatch.setattr(graph, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install 'bitheads\[host\]'"):
        write_host_tokenizer(own_bundle, ["one"])
