"""Equal texts of a call go through the C++ host's encoder once."""

from __future__ import annotations

from pathlib import Path

from host_build import build, run
from test_host_errors import refused

from benchmarks.contenders.host_library import HostEngine, HostLibrary


def test_each_is_read_once_and_has_its_own_codes(host_build: Path, host_bundle: Path) -> None:
    build(host_build, "equal_texts")
    said = run(host_build / "equal_texts", host_bundle)
    assert said.splitlines() == [
        "30 texts, 10 rows, 3 cut, their codes",
        "18 answers, 6 rows",
        "900 texts, 300 rows, 90 cut, their codes",
        "600 answers, 200 rows",
    ]


def test_a_text_is_called_by_its_place_in_the_call(library: HostLibrary, host_bundle: Path) -> None:
    texts: list[str | bytes] = ["a", "a", "b", b"no \xff text", "b", b"no \xff text"]
    with HostEngine(library, host_bundle, "fp32") as host:
        for call in (host.encode, host.predict):
            with refused("invalid_input", "text 3: byte 3 begins no code point"):
                call(texts)
