"""The C++ host, built once a session into build/host, and a bundle that both hosts load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from host_build import BUILD, MIN_AGREEMENT, build
from plugin_build import build_plugins
from random_heads import random_head

from benchmarks.contenders.host_library import HostEngine, HostLibrary
from bitheads.engine.bundle import read_manifest
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import write_head
from bitheads.export.host_tokenizer import write_host_tokenizer
from bitheads.export.texts import read_texts

HEADS = {
    "attends": ("single", PositionPooling.ATTENTION),
    "averages": ("single", PositionPooling.MEAN),
    "pairs": ("pair", PositionPooling.ATTENTION),
    "first": ("pair", PositionPooling.CLS),
    "last": ("single", PositionPooling.LAST),
}


@pytest.fixture(scope="session")
def host_build() -> Path:
    """The build folder, with library and examples."""
    build(BUILD, "all")
    return BUILD


@pytest.fixture(scope="session")
def library(host_build: Path) -> HostLibrary:
    return HostLibrary(host_build / "libbitheads.so")


@pytest.fixture(scope="session")
def add_host_parts(
    tmp_path_factory: pytest.TempPathFactory, host_build: Path
) -> Callable[[Path], Path]:
    """(bundle) -> a copy with the tokenizer's graph and some heads; not to be written to."""

    def add(bundle: Path) -> Path:
        folder = tmp_path_factory.mktemp("host") / "bundle"
        shutil.copytree(bundle, folder)
        write_host_tokenizer(folder, read_texts(None), MIN_AGREEMENT)
        spec = read_manifest(folder).spec
        for seed, (task, (form, pooling)) in enumerate(HEADS.items()):
            if spec.quantization.value != "float16":
                head = random_head(spec, task, pooling, classes=2 + seed, seed=seed, form=form)
                write_head(head, folder / "heads" / f"{task}.safetensors", "float16")
        return folder

    return add


@pytest.fixture(scope="session")
def host_bundle(add_host_parts: Callable[[Path], Path], tiny_bundle: Path) -> Path:
    """The tiny BERT with five heads; not to be written to."""
    return add_host_parts(tiny_bundle)


@pytest.fixture(scope="session")
def demo_bundle(minilm_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 with its heads and the tokenizer's graph; not to be written to."""
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    shutil.copytree(minilm_bundle, folder)
    write_host_tokenizer(folder, read_texts(None))
    return folder


@pytest.fixture(scope="session")
def in_a_program(host_build: Path) -> Path:
    """tests/host/in_a_program.cpp, built."""
    build(host_build, "in_a_program")
    return host_build / "in_a_program"


@pytest.fixture(scope="session", params=["", "address,undefined"], ids=["plain", "sanitized"])
def plugins(request: pytest.FixtureRequest) -> Path:
    """The folder of the plugins and of what stands in for their libraries."""
    return build_plugins(request.param)


@pytest.fixture(scope="session")
def thread_checked_plugins() -> Path:
    """The same under the thread sanitizer."""
    return build_plugins("thread")


@pytest.fixture
def own_host_bundle(host_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(host_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def host_engine(library: HostLibrary, host_bundle: Path) -> HostEngine:
    """In fp32, which gives the same bits in any batch. Heads it has are not to be removed."""
    return HostEngine(library, host_bundle, precision="fp32")
