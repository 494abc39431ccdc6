"""Where the program's locale has a decimal comma, all bits are those of a decimal point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from random_heads import random_head

from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.sessions import supports_bf16

COMMA = "de_DE.UTF-8"

ANSWER = """
import hashlib, json, locale, sys
from pathlib import Path
locale.setlocale(locale.LC_ALL, sys.argv[1])  # as graphical programs do
from bitheads import Engine
texts = ["What a lovely film.", "Shares fell 8.5 percent on Monday.", "It rained all night."] * 8
found = {}
for bundle, backend, precision in json.loads(sys.argv[2]):
    with Engine.load(bundle, backend, precision=precision) as engine:
        features = engine.encode(texts, max_batch_tokens=16)
        answers = [engine.predict_features(features), engine.predict(texts)]
    logits = [answer[task].logits.tobytes() for answer in answers for task in sorted(answer)]
    bits = hashlib.sha256(features.codes.tobytes() + b"".join(logits)).hexdigest()
    found[f"{backend} {precision}"] = bits
print(json.dumps([locale.localeconv()["decimal_point"], found]))
"""


@pytest.fixture(scope="module")
def comma(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which there is a locale with a decimal comma."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef, of the package locales, is not installed")
    folder = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / COMMA)],
        capture_output=True,
        text=True,
        check=False,
    )
    if not (folder / COMMA).exists():
        pytest.skip(f"localedef cannot make {COMMA}: {made.stderr}")
    return {**os.environ, "LOCPATH": str(folder)}


def run(program: str, environment: dict[str, str], *arguments: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_codes_and_answers(
    build_bundle: Callable[..., Path], comma: dict[str, str], tmp_path: Path
) -> None:
    """Of every backend and precision; what one locale put into the cache is read in the other."""
    bundle = tmp_path / "bundle"
    shutil.copytree(build_bundle("bert", precision="int8"), bundle)
    write_head(random_head(read_manifest(bundle).spec), bundle / "heads" / "task.safetensors")
    # Not "auto", which is what was fastest.
    wanted = [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "int8")]
    wanted += [("openvino", "bf16")] if supports_bf16("openvino") else []
    ways = json.dumps([(str(bundle), *way) for way in wanted])
    answers = []
    for first, second in (("C", COMMA), (COMMA, "C")):
        cache = {**comma, "BITHEADS_CACHE": str(tmp_path / f"cache-{first}")}
        for name in (first, second):
            point, found = run(ANSWER, cache, name, ways)
            assert point == ("," if name == COMMA else ".")
            answers.append(found)
    assert answers == [answers[0]] * 4


BUILD = """
import json, locale, sys
from pathlib import Path
locale.setlocale(locale.LC_ALL, sys.argv[1])
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
encoder, texts, output = map(Path, sys.argv[2:])
found = []
for name in (sys.argv[1], "C"):
    locale.setlocale(locale.LC_ALL, name)
    made = make_bundle(
        BuildConfig(
            encoder=str(encoder), calibration=texts, output=output / name, precision="int8"
        )
    )
    made.artifacts.pop("encoder_int8.xml")  # in which NNCF counts its nodes, build after build
    found.append([{name: file.sha256 for name, file in made.artifacts.items()}, made.parity])
print(json.dumps(found))
"""


@pytest.mark.long
def test_a_build(
    tiny_encoder: Callable[[str], Path], few_texts: Path, comma: dict[str, str], tmp_path: Path
) -> None:
    """The same files, and the same comparison with the source."""
    paths = tiny_encoder("bert"), few_texts, tmp_path
    with_comma, with_point = run(BUILD, comma, COMMA, *map(str, paths))
    assert with_comma == with_point


def test_only_numbers_of_only_this_thread(comma: dict[str, str]) -> None:
    program = """
import ctypes, json, locale, threading
from bitheads.engine.process.plain_numbers import plain_numbers
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
libc = ctypes.PyDLL(None)
libc.strtod.restype, libc.strtod.argtypes = ctypes.c_double, [ctypes.c_char_p, ctypes.c_void_p]
libc.iswalpha.argtypes = [ctypes.c_uint]
def read():
    return libc.strtod(b"0.5", None), bool(libc.iswalpha(0xE4))
def read_elsewhere():
    found = []
    thread = threading.Thread(target=lambda: found.append(read()))
    thread.start()
    thread.join()
    return found[0]
before = read()
with plain_numbers():
    inside, elsewhere = read(), read_elsewhere()
    with plain_numbers():
        pass
    still = read()
print(json.dumps([before, inside, elsewhere, still, read()]))
"""
    comma_read, point_read = [0.0, True], [0.5, True]
    assert run(program, comma) == [comma_read, point_read, comma_read, point_read, comma_read]
