"""Options that do not go together are said so before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitheads.engine.features.spec import LayerPooling, Order, Quantization
from bitheads.export.config import DEFAULT_ENCODER, BuildConfig, choose_layers, split_revision
from bitheads.export.errors import ExportError

MEAN, LAST, LEARNED = LayerPooling.MEAN, LayerPooling.LAST, LayerPooling.LEARNED


@pytest.mark.parametrize(
    ("layers", "num_layers", "pooling", "expected"),
    [
        (None, 24, MEAN, range(9, 25)),
        (None, 12, MEAN, range(5, 13)),
        (None, 6, MEAN, range(3, 7)),
        (None, 3, MEAN, [2, 3]),
        (None, 2, MEAN, [2]),
        (None, 1, MEAN, [1]),
        (None, 6, LEARNED, range(3, 7)),
        (None, 6, LAST, [6]),
        ("1", 6, MEAN, [6]),
        ("4", 6, MEAN, range(3, 7)),
        ("6", 6, MEAN, range(1, 7)),
        ("7", 6, MEAN, range(7)),
        ("3-6", 6, MEAN, range(3, 7)),
        ("0-0", 6, MEAN, [0]),
        ("2-2", 6, MEAN, [2]),
        ("3,4,6", 6, MEAN, [3, 4, 6]),
        ("6,3,3", 6, MEAN, [3, 6]),
        ("0,6", 6, MEAN, [0, 6]),
        ("1", 6, LAST, [6]),
        ("6-6", 6, LAST, [6]),
    ],
)
def test_choose_layers(
    layers: str | None, num_layers: int, pooling: LayerPooling, expected: Any
) -> None:
    assert choose_layers(layers, num_layers, pooling) == tuple(expected)


@pytest.mark.parametrize("layers", ["0", "8", "99", "3-7", "6-3", "7,8", "1,7"])
def test_layers_the_encoder_does_not_have_are_an_error(layers: str) -> None:
    with pytest.raises(ExportError, match=rf"got '{layers}', expected hidden states between 0 .*6"):
        choose_layers(layers, 6, MEAN)


@pytest.mark.parametrize("layers", ["", "x", "-1", "1.5", "3,", "3-", "-3", "3 4", "3-4-5", "1,x"])
def test_layers_in_no_known_form_are_an_error(layers: str) -> None:
    with pytest.raises(ExportError, match="expected a form like 4, 3-6 or 3,4,6"):
        choose_layers(layers, 6, MEAN)


@pytest.mark.parametrize("layers", ["2", "5-5", "3,6"])
def test_last_is_the_last_layer(layers: str) -> None:
    with pytest.raises(ExportError, match=r"--layer-pooling last, expected 6\. Leave --layers out"):
        choose_layers(layers, 6, LAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "--precision: got 'int4'"),
        (
            {"order": Order.SIGN_THEN_VOTE, "quantization": Quantization.UINT8},
            "Only signs can vote",
        ),
        ({"thresholds": "mean", "quantization": Quantization.FLOAT16}, "float16 codes have none"),
        ({"thresholds": "a-file", "quantization": Quantization.FLOAT16}, "float16 codes have none"),
        ({"thresholds": "median", "quantization": Quantization.UINT8}, "expected sign"),
        ({"layer_pooling": LEARNED}, "go together"),
        ({"layer_weights": (1.0, 2.0)}, "go together"),
        (
            {
                "layer_pooling": LEARNED,
                "layer_weights": (1.0, 2.0),
                "order": Order.SIGN_THEN_VOTE,
            },
            "no weighted form",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        BuildConfig(**options)


@pytest.mark.parametrize(
    ("encoder", "output"),
    [
        ("all-MiniLM-L6-v2", "bundles/all-MiniLM-L6-v2"),
        ("organisation/model", "bundles/model"),
        ("/models/my-bert/", "bundles/my-bert"),
    ],
)
def test_the_bundle_is_named_after_the_encoder(encoder: str, output: str) -> None:
    assert BuildConfig(encoder=encoder).output_folder == Path(output)


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        (".", "my bert"),
        ("./", "my bert"),
        ("../my bert", "my bert"),
        ("../my bert/", "my bert"),
        ("..", "models"),
        ("inner/..", "my bert"),
        ("inner/.", "inner"),
    ],
)
def test_an_encoder_is_called_after_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, name: str
) -> None:
    (tmp_path / "models" / "my bert" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models" / "my bert")
    assert BuildConfig(encoder=encoder).output_folder == Path("bundles") / name


@pytest.mark.parametrize("encoder", ["", "/"])
def test_an_encoder_without_a_name_is_an_error(encoder: str) -> None:
    with pytest.raises(ExportError, match=r"it has no name\. Expected a hub id, a folder"):
        BuildConfig(encoder=encoder).check_output()


def test_a_mounted_volume_cannot_be_replaced() -> None:
    for force in (True, False):
        with pytest.raises(ExportError, match=r"a volume is mounted.*such as /proc"):
            BuildConfig(output=Path("/proc"), force=force).check_output()


def test_force_does_not_remove_the_encoder(tmp_path: Path) -> None:
    encoder = tmp_path / "bundle" / "encoder"
    encoder.mkdir(parents=True)
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    with pytest.raises(ExportError, match=r"holds the encoder .*which --force would remove"):
        BuildConfig(encoder=str(encoder), output=tmp_path / "bundle", force=True).check_output()


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"exists\. Pass --force"):
        BuildConfig(output=tmp_path).check_output()
    BuildConfig(output=tmp_path, force=True).check_output()
    BuildConfig(output=tmp_path / "new").check_output()


def test_force_replaces_bundles_only(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for output in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ExportError, match="is no bundle, so --force does not replace it"):
            BuildConfig(output=output, force=True).check_output()
    (tmp_path / "bundle.json").write_text("{}")
    BuildConfig(output=tmp_path, force=True).check_output()


class TestRevisions:
    @pytest.mark.parametrize("encoder", [DEFAULT_ENCODER, "org/name@v1", "."])
    def test_of_what_has_none_or_one_already(self, encoder: str) -> None:
        with pytest.raises(ExportError, match=r"--revision: got 'v2' for .*folders and wheels"):
            BuildConfig(encoder=encoder, revision="v2")

    def test_in_the_id_or_beside_it(self) -> None:
        beside = BuildConfig(encoder="org/name", revision="refs/pr/1")
        within = BuildConfig(encoder="org/name@refs/pr/1")
        assert beside.source == within.source == "org/name@refs/pr/1"
        assert beside.output_folder == within.output_folder == Path("bundles/name")

    def test_a_folder_may_have_an_at_in_its_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "name@v1"
        folder.mkdir()
        assert split_revision(str(folder)) == (str(folder), None)
        assert BuildConfig(encoder=str(folder)).output_folder == Path("bundles/name@v1")
