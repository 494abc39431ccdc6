"""Whatever the program's locale, the library reads and writes the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from host_build import run

LOCALES = {
    "de_DE": "1.234,5",
    "fr_FR": "1 234,5",
    "ps_AF": "a decimal point of two bytes",
}


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for LOCPATH."""
    if shutil.which("localedef") is None:
        pytest.skip("no localedef. Type: apt-get install locales")
    folder = tmp_path_factory.mktemp("locales")
    for name in LOCALES:
        made = subprocess.run(
            ["localedef", "-i", name, "-f", "UTF-8", folder / f"{name}.UTF-8"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not (folder / f"{name}.UTF-8" / "LC_NUMERIC").exists():
            pytest.skip(f"localedef cannot make {name} ({made.stderr.strip()})")
    return folder


@pytest.fixture(scope="module")
def damaged(host_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Bundles whose errors have numbers in them."""
    longer, edited, strange = (
        Path(shutil.copytree(host_bundle, tmp_path_factory.mktemp("damaged") / "bundle"))
        for _ in range(3)
    )
    with (longer / "encoder.onnx").open("ab") as file:
        file.write(bytes(1234))
    manifest = json.loads((edited / "bundle.json").read_text())
    manifest["threshold"] = 0.5
    (edited / "bundle.json").write_text(json.dumps(manifest))
    manifest["format_version"] = 1234567
    (strange / "bundle.json").write_text(json.dumps(manifest))
    return [longer, edited, strange]


@pytest.fixture(scope="module", params=["fp32", "int8", "weights"])
def bundle(
    request: pytest.FixtureRequest,
    build_bundle: Callable[..., Path],
    add_host_parts: Callable[[Path], Path],
    host_bundle: Path,
) -> tuple[str, Path]:
    """Precision and bundle. Of int8 the graph is text; a spec with weights is a hash of floats."""
    from bitheads.engine.features.spec import LayerPooling

    if request.param == "fp32":
        return "fp32", host_bundle
    if request.param == "int8":
        return "int8", add_host_parts(build_bundle("bert", precision="int8"))
    weights = {"layer_pooling": LayerPooling.LEARNED, "layer_weights": (0.1, 1e-05, 3.0)}
    return "fp32", add_host_parts(build_bundle("bert", layers="3", **weights))


@pytest.mark.parametrize("name", LOCALES)
def test_everything_is_the_same(
    in_a_program: Path,
    bundle: tuple[str, Path],
    damaged: list[Path],
    locales: Path,
    name: str,
) -> None:
    shown = {
        locale: run(
            *(in_a_program, "locale", locale, *bundle, *damaged),
            environment={"LOCPATH": str(locales)},
        )
        for locale in ("C", f"{name}.UTF-8")
    }
    assert "token id 1234567, expected 0 to 1199" in shown["C"]
    assert "format version 1234567, expected 1" in shown["C"]
    assert shown[f"{name}.UTF-8"] == shown["C"]


def test_the_command_line_writes_json(host_build: Path, host_bundle: Path, locales: Path) -> None:
    given = {"LOCPATH": str(locales), "LC_ALL": "de_DE.UTF-8"}
    shown = run(host_build / "predict_lines", host_bundle, stdin="one\n", environment=given)
    assert shown == run(host_build / "predict_lines", host_bundle, stdin="one\n")
    assert json.loads(shown)["text"] == "one"
