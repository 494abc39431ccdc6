"""Hostile bundles and heads under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from host_build import ROOT, build, run
from hostile_heads import HOSTILE_HEADS, SOUND_HEADS, write_hostile_head
from random_heads import random_head, random_two_texts_head

from bitheads.engine.bundle import MANIFEST, read_manifest
from bitheads.engine.features.embedding import RANGES
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.kinds import Decision

MUTATIONS = 250


def sanitized(target: str) -> Path:
    """A program, built with the sanitizers."""
    folder = ROOT / "build" / "host-sanitize"
    # The kernels' own levels have their sanitizers: here they would take minutes to compile.
    options = ("-DBITHEADS_SIMD=OFF", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0")
    build(folder, target, "-DBITHEADS_SANITIZE=address,undefined", *options)
    return folder / target


@pytest.fixture(scope="module")
def fuzz_files() -> Path:
    return sanitized("fuzz_files")


def test_no_file_leads_the_reader_astray(
    fuzz_files: Path, host_bundle: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    spec = read_manifest(host_bundle).spec
    files = [host_bundle / MANIFEST]
    for pooling, dtype in (
        (PositionPooling.ATTENTION, "float32"),
        (PositionPooling.CLS, "float16"),
    ):
        path = tmp_path / f"{dtype}.safetensors"
        write_head(random_head(spec, "sound", pooling), path, dtype)
        files.append(path)
    decision = Decision(cuts=(-0.5, 0.5), abstain_below=0.4, reject_above=0.0)
    files.append(tmp_path / "kind.safetensors")
    write_head(random_head(spec, "rated", kind="ordinal", decision=decision), files[-1])
    files.append(tmp_path / "two_texts.safetensors")
    write_head(random_two_texts_head(spec, "alike", vector_size=5, inner=3), files[-1])
    calibration = tmp_path / "calibration.safetensors"
    ones = np.ones(64, np.float32)
    save_file({"scale": ones, "zero_point": ones}, calibration)
    embedding = tmp_path / "embedding.safetensors"
    shapes = {"0.weight": (3, 8), "0.bias": (3,), "0.residual": (3, 8), "1.weight": (3,)}
    weights = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    save_file({**weights, RANGES: np.zeros((2, 3), np.float32)}, embedding)
    files.append(embedding)
    folder = tmp_path / "mutated"
    folder.mkdir()
    shown = run(fuzz_files, str(MUTATIONS), folder, *files, calibration)
    # The sound files are read; a mutation may leave JSON that means the same.
    accepted = int(shown.split()[1].rstrip(","))
    assert len(files) < accepted < 0.2 * MUTATIONS


def written_heads(names: Iterable[str], bundle: Path, folder: Path) -> list[Path]:
    """Files of such heads in a folder, beside an empty one named `read`."""
    spec = read_manifest(bundle).spec
    files = []
    for i, name in enumerate(names):
        files.append(folder / f"{i}.safetensors")
        write_hostile_head(name, spec, files[-1])
    (folder / "read").mkdir()
    return files


def test_wrong_heads_whose_hash_is_right(
    fuzz_files: Path, host_bundle: Path, tmp_path: Path
) -> None:
    files = written_heads(HOSTILE_HEADS, host_bundle, tmp_path)
    assert run(fuzz_files, "0", tmp_path / "read", *files) == f"accepted 0, refused {len(files)}\n"


def test_odd_heads_are_asked_for_all_that_they_have(
    fuzz_files: Path, host_bundle: Path, tmp_path: Path
) -> None:
    files = written_heads(SOUND_HEADS, host_bundle, tmp_path)
    assert run(fuzz_files, "0", tmp_path / "read", *files) == f"accepted {len(files)}, refused 0\n"


def test_no_tokenizer_leads_words_astray() -> None:
    """Whose ids of a part have nothing to do with those of the whole."""
    shown = run(sanitized("fuzz_words"), "60")
    assert int(shown.split()[0]) > 20_000
