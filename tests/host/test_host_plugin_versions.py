"""Libraries of other versions are refused before anything but their version is asked: a real
TensorRT-RTX, and fake ones that abort where a real one would crash."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from plugin_build import Driver

OPEN = "open backend=tensorrt graph=g plan=/dev/null profiles=1x1,1x1,1x1 outputs=hidden_1 dim=8"


@pytest.mark.parametrize(
    ("plugin", "library", "is_fit"),
    [
        ("tensorrt", "10.14.1.48", True),
        ("tensorrt", "10.15.0.1", True),
        ("tensorrt", "10.13.3.9", False),
        ("tensorrt", "8.6.1.6", False),
        ("tensorrt", "11.1.0.10", False),
        ("tensorrt", "1.4.0.1", False),
        ("tensorrt_rtx", "1.4.0.1", True),
        ("tensorrt_rtx", "1.3.0.35", False),
        ("tensorrt_rtx", "1.5.0.1", False),
        ("tensorrt_rtx", "2.4.0.1", False),
        ("tensorrt_rtx", "10.14.1.48", False),
    ],
)
def test_versions(plugins: Path, plugin: str, library: str, is_fit: bool) -> None:
    environment = {
        f"BITHEADS_{plugin.upper()}_LIBRARY": plugins / f"libfake_{plugin}.so",
        "FAKE_VERSION": library,
    }
    found, opened = Driver(plugins, plugin).obey(["library", OPEN], environment)
    if is_fit:
        assert found == library
        assert "magic tag does not match" in opened
    else:
        assert f": got a library of version {library}, expected " in found
        assert opened == f"failed 3 {found}"


@pytest.mark.parametrize("plugin", ["tensorrt", "tensorrt_rtx"])
def test_a_library_that_is_not_there_or_is_another(
    plugins: Path, tmp_path: Path, plugin: str
) -> None:
    named = f"BITHEADS_{plugin.upper()}_LIBRARY"
    missing = tmp_path / "libnvinfer.so"
    first, second, _, third = Driver(plugins, plugin).obey(
        ["library", OPEN, f"set {named} {plugins / 'libfake_onnxruntime.so'}", OPEN],
        {named: missing},
    )
    assert " cannot be loaded: " in first
    assert str(missing) in first
    assert second == f"failed 1 {first}"
    assert third.startswith("failed 3 ")
    assert ": the library has no getInferLibMajorVersion, expected version " in third


def test_a_real_tensorrt_rtx(plugins: Path) -> None:
    spec = find_spec("tensorrt_rtx_libs")
    if spec is None or spec.origin is None:
        pytest.skip("TensorRT-RTX is not installed. Type: make device")
    (library,) = Path(spec.origin).parent.glob("libtensorrt_rtx.so*")
    installed = version("tensorrt-rtx-cu13-libs")
    for plugin in ("tensorrt", "tensorrt_rtx"):
        environment = {f"BITHEADS_{plugin.upper()}_LIBRARY": library}
        found, opened = Driver(plugins, plugin).obey(["library", OPEN], environment)
        assert f": got a library of version {installed}, expected " in found
        assert opened == f"failed 3 {found}"
