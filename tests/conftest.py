"""Encoders and bundles for all tests, made on the spot: nothing is fetched.

Nothing heavy is imported before a fixture asks for it, so the kernel tests stay light.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from bitheads import Engine

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
# No test writes to the user's cache.
os.environ["BITHEADS_CACHE"] = ""
# Threads that wait for each other spin while anything else keeps the cores busy, which makes tiny
# models 50 times slower; alone they gain nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts tests in the background has them ignore Ctrl-C, and with them all processes
# that they start and interrupt, which would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere, so that what passed here passes there; nothing is timed. For others:
# --hypothesis-profile default.
hypothesis.settings.register_profile("bitheads", deadline=None, derandomize=True)
hypothesis.settings.load_profile("bitheads")

BuildBundle = Callable[..., Path]

CALIBRATION_TEXTS = 120
"""Enough sentences to calibrate on and to compare with the source model; a build takes more."""


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family -> folder of a tiny encoder with random weights."""
    from tiny_encoders import save_tiny_encoder

    made: dict[str, Path] = {}

    def make(family: str = "bert") -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("encoders") / f"tiny-{family}"
            made[family] = save_tiny_encoder(family, folder)
        return made[family]

    return make


@pytest.fixture(scope="session")
def few_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration file of some of the shipped sentences."""
    from tiny_encoders import corpus

    texts = corpus()
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(texts[:: len(texts) // CALIBRATION_TEXTS]), encoding="utf-8")
    return path


TRACED = Path(__file__).parents[1] / "build" / "traced"
"""Graphs that were traced, by what they were traced by: `make clean` forgets them."""


def tracer() -> str:
    """A hash of all that traces: our own code, and the versions of the rest."""
    from importlib.metadata import version

    import bitheads.export

    digest = hashlib.sha256()
    for path in sorted(Path(bitheads.export.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in ("torch", "transformers", "onnx", "onnxscript", "onnx-ir"):
        digest.update(f"{name} {version(name)}".encode())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def traced_once() -> Iterator[None]:
    """Each graph is traced once, whatever session asks, and then copied: tracing is most of a tiny
    build."""
    from bitheads.export import make_bundle, onnx_graph

    folder = TRACED / tracer()
    folder.mkdir(parents=True, exist_ok=True)
    export_graph = make_bundle.export_graph

    def export_once(encoder: Any, layers: Any, precision: str, path: Path) -> list[Path]:
        # All that a graph depends on.
        config = encoder.model.config.to_json_string()
        made_of = [encoder.weights_sha256, config, encoder.reads_token_types, layers, precision]
        made_of += [encoder.max_length, encoder.forward, onnx_graph.MAX_SINGLE_FILE_BYTES]
        kept = folder / hashlib.sha256(repr(made_of).encode()).hexdigest()
        if not kept.exists():
            if len(files := export_graph(encoder, layers, precision, path)) > 1:
                return files
            aside = kept.with_suffix(f".{os.getpid()}")  # another session may be at it
            shutil.copyfile(path, aside)
            aside.replace(kept)
        shutil.copyfile(kept, path)
        return [path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_bundle, "export_graph", export_once)
        yield


@pytest.fixture(scope="session")
def build_bundle(
    tiny_encoder: Callable[[str], Path],
    few_texts: Path,
    traced_once: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> BuildBundle:
    """(family, BuildConfig options) -> folder of a bundle; not to be written to."""
    from bitheads.export.config import BuildConfig
    from bitheads.export.make_bundle import make_bundle

    made: dict[str, Path] = {}

    def build(family: str = "bert", **options: Any) -> Path:
        key = f"{family} {sorted(options.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp("bundles") / f"tiny-{family}"
            make_bundle(
                BuildConfig(
                    encoder=str(tiny_encoder(family)),
                    calibration=few_texts,
                    output=folder,
                    **options,
                )
            )
            made[key] = folder
        return made[key]

    return build


@pytest.fixture(scope="session")
def tiny_bundle(build_bundle: BuildBundle) -> Path:
    """The tiny BERT in fp16, signs of the mean of its last two layers; not to be written to."""
    return build_bundle("bert")


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def tiny_engine(tiny_bundle: Path) -> Engine:
    """A fresh engine on `tiny_bundle`, with no head, in fp32."""
    from bitheads import Engine

    return Engine.load(tiny_bundle, backend="onnxruntime")


@pytest.fixture(scope="session")
def minilm_bundle(few_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2, exported with the default options; not to be written to."""
    from bitheads.export.config import BuildConfig
    from bitheads.export.make_bundle import make_bundle

    folder = tmp_path_factory.mktemp("bundles") / "all-MiniLM-L6-v2"
    make_bundle(BuildConfig(calibration=few_texts, output=folder))
    return folder
