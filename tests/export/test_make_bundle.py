"""Whatever happens, the output folder holds the old bundle, the new one, or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from durable import watched_disk
from random_heads import random_head

from bitheads import Engine, HeadError, SpecMismatchError
from bitheads.engine.bundle import (
    GRAPH,
    HEADS,
    MANIFEST,
    TOKENIZER,
    Artifact,
    read_manifest,
    verify,
)
from bitheads.engine.features.spec import LayerPooling
from bitheads.engine.heads.head_file import write_head
from bitheads.export import make_bundle as make_bundle_module
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle


@pytest.fixture
def config(
    tiny_encoder: Callable[[str], Path], few_texts: Path, traced_once: None, tmp_path: Path
) -> BuildConfig:
    """The build of `tiny_bundle`, to a folder of its own."""
    return BuildConfig(
        encoder=str(tiny_encoder("bert")), calibration=few_texts, output=tmp_path / "out" / "bundle"
    )


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): Artifact.of(path).sha256 for path in files}


def fail(error: BaseException) -> Callable[..., NoReturn]:
    def function(*arguments: Any, **options: Any) -> NoReturn:
        raise error

    return function


def test_a_bundle_is_whole(config: BuildConfig) -> None:
    said: list[str] = []
    manifest = make_bundle(config, said.append)
    folder = config.output_folder
    assert {path.name for path in folder.iterdir()} == {MANIFEST, GRAPH, TOKENIZER, HEADS}
    assert read_manifest(folder) == manifest
    verify(folder, manifest)
    assert set(manifest.artifacts) == {GRAPH, TOKENIZER}
    assert list(folder.parent.iterdir()) == [folder]
    assert folder.stat().st_mode & 0o777 == 0o755
    assert said[-1] == f"wrote {folder}"
    assert any("of signs as in torch fp32" in line for line in said)


def test_the_same_build_has_the_same_spec_and_graph(config: BuildConfig, tiny_bundle: Path) -> None:
    manifest, other = make_bundle(config), read_manifest(tiny_bundle)
    assert manifest.spec.id == other.spec.id
    assert manifest.artifacts == other.artifacts


def test_an_existing_output_is_kept(config: BuildConfig, own_bundle: Path) -> None:
    before = contents(own_bundle)
    with pytest.raises(ExportError, match=r"exists\. Pass --force"):
        make_bundle(replace(config, output=own_bundle))
    assert contents(own_bundle) == before


def test_force_replaces_all_of_it(config: BuildConfig, own_bundle: Path) -> None:
    (own_bundle / "left-over").write_text("x")
    make_bundle(replace(config, output=own_bundle, force=True, max_length=20))
    assert not (own_bundle / "left-over").exists()
    assert read_manifest(own_bundle).encoder.max_length == 20
    assert list(own_bundle.parent.iterdir()) == [own_bundle]


def test_failing_parity_writes_nothing(config: BuildConfig) -> None:
    with pytest.raises(ExportError, match=r"(?s)does not match its source.*fp32: 99.*worst layer"):
        make_bundle(replace(config, min_sign_agreement=1.1))
    assert list(config.output_folder.parent.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["load_encoder", "compare_session"])
def test_a_failure_leaves_nothing(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    monkeypatch.setattr(f"bitheads.export.make_bundle.{step}", fail(error))
    with pytest.raises(type(error)):
        make_bundle(config)
    assert list(config.output_folder.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("load_encoder", RuntimeError("broken")),
        ("ReferenceModel", RuntimeError("broken")),
        ("run_reference", MemoryError()),
        ("calibrate", KeyboardInterrupt()),
        ("export_graph", KeyboardInterrupt()),
        ("compare_session", RuntimeError("broken")),
        ("_copy_heads", KeyboardInterrupt()),
        ("_versions", RuntimeError("broken")),
    ],
)
def test_a_failure_in_any_step_leaves_the_old_bundle(
    config: BuildConfig,
    own_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: BaseException,
) -> None:
    before = contents(own_bundle)
    monkeypatch.setattr(f"bitheads.export.make_bundle.{step}", fail(error))
    with pytest.raises(type(error)):
        make_bundle(replace(config, output=own_bundle, force=True))
    assert contents(own_bundle) == before
    assert list(own_bundle.parent.iterdir()) == [own_bundle]


def test_a_full_disk_is_said_and_leaves_nothing(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bitheads.export.make_bundle.export_graph", fail(OSError(28, "No space left"))
    )
    with pytest.raises(ExportError, match=r"cannot be written .*No space left.*Free some space"):
        make_bundle(config)
    assert list(config.output_folder.parent.iterdir()) == []


def test_a_bundle_outlasts_a_crash(config: BuildConfig, tmp_path: Path) -> None:
    with watched_disk(tmp_path) as disk:
        make_bundle(replace(config, output=tmp_path / "new" / "bundle"))
    disk.check()


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()])
def test_a_failure_of_the_last_rename_puts_the_old_bundle_back(
    config: BuildConfig, own_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = contents(own_bundle)
    rename = Path.rename

    def rename_but_the_new(path: Path, target: Path) -> Path:
        if ".partial-" in path.name:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_but_the_new)
    with pytest.raises((ExportError, KeyboardInterrupt)):
        make_bundle(replace(config, output=own_bundle, force=True))
    monkeypatch.undo()
    assert contents(own_bundle) == before
    assert list(own_bundle.parent.iterdir()) == [own_bundle]


class TestTwoBuilds:
    """Builds write to one output at once: none replaces what it was not told to."""

    @pytest.fixture
    def another(
        self, own_bundle: Path, config: BuildConfig, monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, str]:
        """A bundle that comes while the build is at its end; its contents."""
        copy_heads = make_bundle_module._copy_heads

        def copy_heads_late(*arguments: Any) -> int:
            if not config.output_folder.exists():
                shutil.copytree(own_bundle, config.output_folder)
            return copy_heads(*arguments)

        monkeypatch.setattr(make_bundle_module, "_copy_heads", copy_heads_late)
        (own_bundle / "mark").write_text("of another build")
        return contents(own_bundle)

    def test_the_second_is_an_error(self, config: BuildConfig, another: dict[str, str]) -> None:
        with pytest.raises(ExportError, match=r"else was written there meanwhile, .* and stays"):
            make_bundle(config)
        assert contents(config.output_folder) == another
        assert list(config.output_folder.parent.iterdir()) == [config.output_folder]

    def test_with_force_it_replaces(self, config: BuildConfig, another: dict[str, str]) -> None:
        make_bundle(replace(config, force=True))
        assert "mark" not in contents(config.output_folder)
        assert list(config.output_folder.parent.iterdir()) == [config.output_folder]

    def test_both_with_force(
        self,
        config: BuildConfig,
        own_bundle: Path,
        tiny_bundle: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The other comes just when the old bundle was put aside."""
        rename = Path.rename

        def rename_late(path: Path, target: Path) -> Path:
            if ".partial-" in path.name:
                shutil.copytree(tiny_bundle, own_bundle)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_late)
        with pytest.raises(ExportError, match="else was written there meanwhile"):
            make_bundle(replace(config, output=own_bundle, force=True))
        assert contents(own_bundle) == contents(tiny_bundle)
        assert list(own_bundle.parent.iterdir()) == [own_bundle]


@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_link_leads_to_is_written(
    config: BuildConfig, own_bundle: Path, tmp_path: Path, is_there: bool
) -> None:
    link, target = tmp_path / "link", own_bundle if is_there else tmp_path / "new" / "bundle"
    link.symlink_to(target)
    make_bundle(replace(config, output=link, force=is_there, max_length=20))
    assert link.is_symlink()
    assert read_manifest(target).encoder.max_length == 20
    assert list(target.parent.glob(".*")) == []


def test_an_encoder_by_its_folder_alone(
    config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build runs inside of it, so that the bundle is there, too."""
    folder = Path(shutil.copytree(config.encoder, tmp_path / "my bert"))
    monkeypatch.chdir(folder)
    assert make_bundle(replace(config, encoder=".", output=None)).spec.encoder == "my bert"
    assert read_manifest(folder / "bundles" / "my bert").spec.encoder == "my bert"


def test_an_output_below_a_file_cannot_be_written(config: BuildConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match=r"cannot be written .*Choose a folder"):
        make_bundle(replace(config, output=tmp_path / "file" / "bundle"))


@pytest.mark.parametrize("max_length", [5, 20, 64])
def test_max_length_is_kept_to(config: BuildConfig, max_length: int) -> None:
    make_bundle(replace(config, max_length=max_length))
    engine = Engine.load(config.output_folder, backend="onnxruntime")
    texts = ["tide " * 200, ("tide " * 200, "out " * 200), "short"]
    features = engine.encode(texts)
    assert features.num_tokens[:2].tolist() == [max_length, max_length]
    assert features.stats.num_truncated == 2


@pytest.mark.parametrize("max_length", [-1, 0, 4, 65])
def test_a_max_length_the_encoder_cannot_read_is_an_error(
    config: BuildConfig, max_length: int
) -> None:
    with pytest.raises(ExportError, match=rf"--max-length: got {max_length}, expected 5 to 64"):
        make_bundle(replace(config, max_length=max_length))


def test_the_shortest_limit_still_cuts_pairs_of_roberta(
    config: BuildConfig, tiny_encoder: Callable[[str], Path]
) -> None:
    """The tokenizer's template adds four tokens to a pair."""
    make_bundle(replace(config, encoder=str(tiny_encoder("roberta")), max_length=5))
    engine = Engine.load(config.output_folder, backend="onnxruntime")
    assert engine.encode([("one two", "three four"), ("", "")]).num_tokens.tolist() == [5, 4]


def test_layers_that_are_asked_for(config: BuildConfig) -> None:
    manifest = make_bundle(replace(config, layers="0-3"))
    assert manifest.spec.layers == (0, 1, 2, 3)
    assert manifest.output_names == ["hidden_0", "hidden_1", "hidden_2", "hidden_3"]
    features = Engine.load(config.output_folder, backend="openvino").encode(["text"])
    assert features.codes.shape[1] == 8


def test_an_unknown_layer_is_found_before_torch_runs(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitheads.export.make_bundle.run_reference", fail(AssertionError("ran")))
    with pytest.raises(ExportError, match="--layers"):
        make_bundle(replace(config, layers="9"))
    with pytest.raises(ExportError, match=r"--layer-weights: got 3, expected 2"):
        make_bundle(
            replace(config, layer_pooling=LayerPooling.LEARNED, layer_weights=(1.0, 1.0, 1.0))
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"\xff\xfe", "cannot be read"), (b"\n \n", "no text in it")],
)
def test_calibration_texts_that_cannot_be_used(
    config: BuildConfig, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=rf"--calibration .*mine\.txt.*{message}"):
        make_bundle(replace(config, calibration=path))


def test_one_text_is_enough_to_build(config: BuildConfig, tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("\n\nThe tide was out, and every boat lay on its side.\n", encoding="utf-8")
    # So few signs that one which differs would be far above the usual bound.
    manifest = make_bundle(replace(config, calibration=path, min_sign_agreement=0.95))
    assert manifest.parity["texts"] == 1


class TestHeads:
    """Heads of a folder move into the bundle, if they belong there."""

    @pytest.fixture
    def heads(self, tiny_bundle: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "my-heads"
        spec = read_manifest(tiny_bundle).spec
        for task in ("one", "two"):
            write_head(random_head(spec, task), folder / f"{task}.safetensors")
        return folder

    def test_they_are_copied(self, config: BuildConfig, heads: Path) -> None:
        make_bundle(replace(config, heads=heads))
        engine = Engine.load(config.output_folder, backend="onnxruntime")
        assert list(engine.tasks) == ["one", "two"]
        assert contents(config.output_folder / HEADS) == contents(heads)

    def test_a_head_of_another_spec_names_both(self, config: BuildConfig, heads: Path) -> None:
        with pytest.raises(SpecMismatchError, match=r"one\.safetensors"):
            make_bundle(replace(config, heads=heads, thresholds="median"))
        assert not config.output_folder.exists()

    def test_a_damaged_head_is_named(self, config: BuildConfig, heads: Path) -> None:
        (heads / "two.safetensors").write_bytes(b"x")
        with pytest.raises(HeadError, match=r"two\.safetensors"):
            make_bundle(replace(config, heads=heads))
        assert not config.output_folder.exists()

    def test_a_missing_folder_is_an_error(self, config: BuildConfig, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="no such folder"):
            make_bundle(replace(config, heads=tmp_path / "none"))

    def test_a_bundle_may_hand_its_heads_to_its_successor(
        self, config: BuildConfig, own_bundle: Path, heads: Path
    ) -> None:
        shutil.copytree(heads, own_bundle / HEADS, dirs_exist_ok=True)
        make_bundle(replace(config, output=own_bundle, heads=own_bundle / HEADS, force=True))
        assert len(Engine.load(own_bundle, backend="onnxruntime").tasks) == 2


def test_the_real_encoder_agrees_with_the_shipped_thresholds(minilm_bundle: Path) -> None:
    manifest = read_manifest(minilm_bundle)
    assert manifest.spec.id == "150c3b7213ac8f0b"  # heads that are shipped belong to it
    assert manifest.spec.layers == (3, 4, 5, 6)
    assert manifest.encoder.max_length == 512
    sessions = manifest.parity["sessions"]
    assert sessions["openvino fp32"]["pooled"]["sign_agreement"] > 0.9995
    codes = Engine.load(minilm_bundle).encode(["The tide was out."]).codes
    assert 0.3 < np.unpackbits(codes).mean() < 0.7
