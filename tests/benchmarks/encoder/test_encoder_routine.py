"""The encoder's benchmark: its arithmetic, each contender's work, and that it runs."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.encoder import comparison, contenders, measure, runners, table
from benchmarks.encoder.process import Process
from benchmarks.encoder.runners.batches import ROWS, Batches
from benchmarks.encoder.worker import Runner
from benchmarks.figures import flops
from benchmarks.inputs import seeded_bundle
from benchmarks.inputs.shapes import Shape
from benchmarks.options import command
from benchmarks.processes.child import ChildError
from bitheads import Engine

TEXTS = ["One text.", "A somewhat longer text than that, for padding.", "Why?"]
TINY = Shape(2, 64, 128, 4, pooled_layers=1, vocab_size=1200, max_length=64)


@pytest.fixture
def request_of(tiny_bundle: Path, tiny_encoder: Any, tmp_path: Path) -> Any:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(TEXTS), encoding="utf-8")

    def make(module: str, **more: Any) -> dict[str, Any]:
        return {
            "module": module,
            "precision": "fp32",
            "bundle": str(tiny_bundle),
            "source": str(tiny_encoder("bert")),
            "shape": None,
            "texts": str(file),
            "max_length": 64,
            "prefix": "",
            "threads": 1,
            "matmul_size": 32,
            **more,
        }

    return make


def runner(request: dict[str, Any]) -> Runner:
    module = import_module(f"benchmarks.encoder.runners.{request['module']}")
    made: Runner = module.make(request)
    made.encode()
    return made


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("ours", {"backend": "openvino"}),
        ("plain", {"library": "openvino"}),
        ("plain", {"library": "onnxruntime"}),
    ],
)
def test_contenders_compute_the_same(request_of: Any, module: str, options: dict[str, str]) -> None:
    expected = runner(request_of("transformers_peer")).signs("pooled")
    found = runner(request_of(module, **options))
    assert comparison.same_signs(found.signs("pooled"), expected, 64) > 0.99
    share = found.padding_share()
    assert share is not None
    assert 0 <= share < 1


def test_sentence_transformers_gives_the_last_layer(request_of: Any) -> None:
    expected = runner(request_of("transformers_peer")).signs("last")
    found = runner(request_of("sentence_transformers_peer", backend="torch"))
    assert comparison.same_signs(found.signs("last"), expected, 64) > 0.999


def test_ctranslate2_gives_the_last_layer(request_of: Any, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    expected = runner(request_of("transformers_peer")).signs("last")
    request = request_of("ctranslate2_peer", type="float32")
    # It reads an entry that transformers no longer writes, but models of the time have.
    source = Path(shutil.copytree(request["source"], tmp_path / "source"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["position_embedding_type"] = "absolute"
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = runner({**request, "source": str(source)})
    assert comparison.same_signs(found.signs("last"), expected, 64) > 0.999
    with pytest.raises(ValueError, match="none of"):
        runner({**request, "type": "bfloat17"})


def test_batches_are_sorted_and_padded(request_of: Any) -> None:
    batches = Batches(request_of("plain", library="openvino"))
    texts = [f"{'word ' * (i % 7)}end" for i in range(2 * ROWS + 3)]
    found = list(batches(texts))
    assert sorted(i for batch in found for i in batch.texts) == [*range(len(texts))]
    assert [len(batch.texts) for batch in found] == [ROWS, ROWS, 3]
    longest = [batch.ids.shape[1] for batch in found]
    assert longest == sorted(longest, reverse=True)
    assert sum(batch.padding() for batch in found) < 0.2 * sum(batch.ids.size for batch in found)


def test_signs_are_counted() -> None:
    one = np.array([[0b1111_0000, 0], [0, 0]], np.uint8)
    other = np.array([[0b1110_0001, 0], [0, 0]], np.uint8)
    assert comparison.same_signs(one, other, 16) == 1 - 2 / 32
    assert comparison.same_signs(one, one, 16) == 1
    assert comparison.same_signs(one, other[:1], 16) is None


def test_rates_by_hand() -> None:
    assert comparison.peak_gflops(1000, us=1e6) == 2
    shape = Shape(1, 100, 400, 4, pooled_layers=1)
    assert comparison.gflops(shape, [10, 20], us=1000) == pytest.approx(
        2 * (flops.encoder(shape, 10) + flops.encoder(shape, 20)) / 1e6
    )


def row(times: float, role: str = "peer", **more: Any) -> dict[str, Any]:
    return {"role": role, "precision": "fp32", "times_ours": times, **more}


def test_the_best_of_the_others() -> None:
    rows = {
        "ours": row(1.0, "ours", precision="bf16", sign_agreement=0.998),
        "transformers": row(3.0),
        "quick and rough": row(0.8, precision="int8", sign_agreement=0.95),
        "exact": row(1.5, precision="bf16", sign_agreement=0.998),
        "unknown": row(0.9, precision=None),
    }
    found = comparison.best_peers(rows, "ours")
    assert found == {"fp32": "transformers", "as exact": "exact", "any": "quick and rough"}
    assert comparison.best_peers({"ours": rows["ours"]}, "ours")["any"] is None


def test_who_takes_part() -> None:
    names = [c.name for c in contenders.all_contenders(["int8_dynamic", "int8"])]
    assert len(names) == len({*names})
    modules = {path.stem for path in Path(runners.__file__).parent.glob("*.py")}
    assert {c.module for c in contenders.all_contenders()} == modules - {"__init__", "batches"}
    ours = "bitheads, openvino int8"
    assert ours in names
    assert "bitheads, openvino int8_dynamic" in names
    assert ours not in [c.name for c in contenders.all_contenders()]
    assert not next(
        c for c in contenders.all_contenders(["int8_dynamic", "int8"]) if c.name == ours
    ).seeded
    found = contenders.chosen(["transf", "matmul"])
    assert {c.role for c in found} == {"ours", "peer", "peak"}
    assert [c.name for c in found if c.role == "peer"] == ["transformers"]
    with pytest.raises(Exception, match="--only: got 'none', which begins none of: bitheads"):
        contenders.chosen(["none"])


def test_a_seeded_bundle_has_the_weights_of_the_reference(
    request_of: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "seeded"
    folder.mkdir()
    seeded_bundle.make_bundle("tiny", TINY, tiny_bundle, folder)
    request = request_of(
        "transformers_peer", bundle=str(folder), source=None, shape=dataclasses.asdict(TINY)
    )
    expected = runner(request).signs("pooled")
    with Engine.load(folder, "onnxruntime") as engine:
        assert comparison.same_signs(engine.encode(TEXTS).codes, expected, 64) > 0.98


def test_a_process_that_cannot_is_skipped(request_of: Any, tmp_path: Path) -> None:
    request = request_of("plain", library="openvino", bundle=str(tmp_path))
    with Process("x", request, tmp_path / "log") as process:
        process.ready()
        assert process.skipped is not None
        assert process.skipped.startswith("BundleError: ")
        with pytest.raises(ChildError, match="x: its process ended"):
            process.encode()


@pytest.mark.long
def test_a_quick_run_from_end_to_end(
    tiny_bundle: Path,
    tiny_encoder: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The slow to start take no part; their own tests are above."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "SEEDED", {"tiny": TINY})
    options = ["--bundle", str(tiny_bundle), "--encoder", str(tiny_encoder("bert"))]
    options += ["--only", "transformers", "matmul", "--shapes", "--threads", "1"]
    assert command_line.main(["encoder", "--quick", *options]) == 0
    assert not list(tmp_path.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(stored["result"]["encoders"]) == 2
    assert stored["result"]["failed"] == {}
    seeded_one = stored["result"]["encoders"]["tiny"]
    for encoder in stored["result"]["encoders"].values():
        assert encoder["skipped"] == {}
        for name, found in encoder["contenders"].items():
            assert found["tokens_per_s"] > found["texts_per_s"] > 0
            assert found["peak_rss_bytes"] > 10e6
            assert (found["percent_of_peak"] is None) == (
                found["precision"] not in ("fp32", "bf16")
            )
            is_compared = name != "transformers" and encoder is not seeded_one
            assert is_compared == ("sign_agreement" in found)
            assert found.get("sign_agreement", 1) > 0.95
        ours = encoder["contenders"][encoder["ours"]]
        assert ours["times_ours"] == 1
        assert {*ours["stages_s"]} == {"tokenize_s", "encode_s", "pack_s", "heads_s"}
        assert all(seconds > 0 for seconds in ours["stages_s"].values())
        assert "stages_s" not in encoder["contenders"]["transformers"]
        assert {"torch", "transformers"} <= {*encoder["contenders"]["transformers"]["versions"]}
    shown = table.measured(stored)
    assert len(re.findall(r"^\| \*\*bitheads, openvino fp32\*\* \|", shown, re.MULTILINE)) == 2
    assert "times as fast as the fastest other in fp32, transformers" in shown
    assert re.search(r"everything else takes \d+\.\d% of it \(tokenize .*, 14 heads ", shown)


def test_an_encoder_that_fails_does_not_take_the_others_along(
    tiny_bundle: Path, tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*arguments: Any) -> None:
        raise ChildError("matmul: its process ended.")

    monkeypatch.setattr(measure, "SEEDED", {"tiny": TINY})
    monkeypatch.setattr(seeded_bundle, "make_bundle", fail)
    options = ["--bundle", str(tiny_bundle), "--encoder", str(tiny_encoder("bert"))]
    options += ["--only", "matmul", "--shapes", "--threads", "1"]
    assert command_line.main(["encoder", "--quick", *options]) == 0
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(stored["result"]["encoders"]) == 1
    assert stored["result"]["failed"] == {"tiny": "matmul: its process ended."}
    assert "tiny was not measured: matmul: its" in table.measured(stored)


def test_the_peak_in_int8_is_of_int8() -> None:
    from benchmarks.encoder.runners.matmul import Matmul

    runner = Matmul({"matmul_size": 64, "precision": "int8", "threads": 1})
    runner.encode()
    model = runner._request.get_compiled_model().get_runtime_model()
    kinds = [
        str(op.get_rt_info()["primitiveType"].astype(str))
        for op in model.get_ops()
        if "primitiveType" in op.get_rt_info()
    ]
    assert any(kind.lower().endswith("i8") for kind in kinds), kinds


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--texts", "0"], "--texts: got 0"),
        (["--rounds", "0"], "--rounds: got 0"),
        (["--seeded-texts", "0"], "--seeded-texts: got 0"),
        (["--shapes", "none"], "--shapes: got 'none', expected some of ['RoBERTa-base'"),
        (["--bundle", "none"], "none"),
    ],
)
def test_what_cannot_be_is_said_first(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["encoder", *arguments]) == 1
    assert error in capsys.readouterr().err


def test_options_are_part_of_the_command() -> None:
    plain = command_line._parser().parse_args(["encoder"])
    assert command("encoder", plain) == "python -m benchmarks encoder"
    words = ["encoder", "--texts", "9", "--only", "a b", "--threads", "4", "--shapes"]
    options = command_line._parser().parse_args(words)
    expected = "encoder --texts 9 --only 'a b' --threads 4 --shapes"
    assert command("encoder", options) == f"python -m benchmarks {expected}"
