"""`bitheads host-tokenizer`: a bundle's tokenizer as a graph, for the C++ host.

openvino-tokenizers makes an OpenVINO graph of it, which any process runs without Python. The graph
only splits text: it adds no tokens of the tokenizer's own and cuts nothing. The host does both, as
`engine.texts.tokenize` does, from the template that is written beside it.

    host/tokenizer.xml, .bin    texts [n] -> begins, ends int32 [n], ids int32 [tokens]
    host/tokenizer_graph.json   templates, tokens of blanks, hashes, the tokenizer it was made of,
                                the comparison

It is a cache of tokenizer.json, for one line of OpenVINO versions, so bundle.json does not list it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from bitheads.engine.bundle import TOKENIZER, Artifact, read_manifest
from bitheads.engine.commands.command_line import exit_code
from bitheads.engine.files.whole_file import write_whole
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.export.errors import ExportError
from bitheads.export.tokenizer.blanks import blank_tokens
from bitheads.export.tokenizer.comparison import Comparison, compare, load
from bitheads.export.tokenizer.graph import GRAPH, WEIGHTS, write_graph

FORMAT_VERSION = 1
FOLDER = "host"
DESCRIPTION = "tokenizer_graph.json"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options), "interrupted")


def _run(options: argparse.Namespace) -> None:
    from bitheads.export.texts import read_texts

    texts = read_texts(options.texts)
    report = write_host_tokenizer(options.bundle, texts, options.min_agreement, options.force)
    print(
        f"wrote {options.bundle / FOLDER}: token ids of {report['same']} of {report['texts']} "
        "texts are the tokenizer's own"
    )


@plain_numbers()
def write_host_tokenizer(
    bundle: Path, texts: Sequence[str], min_agreement: float = 1.0, force: bool = False
) -> dict[str, Any]:
    """Writes the folder `host` of a bundle and returns the comparison with the tokenizer itself.

    Args:
        texts: to compare on; some that are hard for tokenizers are added
            (export.tokenizer.odd_texts).
        min_agreement: least share of all of these with the very same ids.

    Raises ExportError if openvino-tokenizers is missing or cannot convert the tokenizer, if ids
    differ, or if the folder is there (without `force`); BundleError for what is no bundle.
    """
    manifest = read_manifest(bundle)
    folder = bundle / FOLDER
    if (folder / DESCRIPTION).exists() and not force:
        raise ExportError(f"{folder} is there already. Pass --force to replace it.")
    prefix = manifest.spec.prefix
    TextTokenizer(bundle / TOKENIZER, manifest.encoder.max_length, prefix=prefix)  # or raises
    own = load(bundle / TOKENIZER)
    with TemporaryDirectory() as name:
        made = Path(name)
        write_graph(bundle / TOKENIZER, made)
        comparison = compare(own, made / GRAPH, texts, prefix)
        _check(comparison, min_agreement)
        report = comparison.to_json()
        description = {**describe(bundle / TOKENIZER, made), "agreement": report}
        # Last, what names the others: a write that is cut short leaves nothing that is believed.
        for file in (WEIGHTS, GRAPH):
            write_whole(folder / file, (made / file).read_bytes())
    write_description(folder, description)
    return report


def describe(tokenizer: Path, graph: Path) -> dict[str, Any]:
    """What the host has to know of a tokenizer.json beside the graph of it, in a folder."""
    own = load(tokenizer)
    return {
        "format_version": FORMAT_VERSION,
        "tokenizer_sha256": Artifact.of(tokenizer).sha256,
        "files": {name: asdict(Artifact.of(graph / name)) for name in (GRAPH, WEIGHTS)},
        "single": _template(own, 1),
        "pair": _template(own, 2),
        "blanks": blank_tokens(own),
        "versions": {name: version(name) for name in ("openvino", "openvino-tokenizers")},
    }


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes it with a hash of itself."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    content = json.dumps({**description, "sha256": digest}, indent=2) + "\n"
    write_whole(folder / DESCRIPTION, content.encode())


def _check(comparison: Comparison, min_agreement: float) -> None:
    """Raises ExportError, with a table of what differs, if too many texts do."""
    if comparison.same >= min_agreement * comparison.texts:
        return
    table = "\n  ".join(map(str, comparison.differing))
    raise ExportError(
        f"the tokenizer's graph: token ids of {comparison.same} of {comparison.texts} texts are "
        f"its own, expected at least {min_agreement:.2%}. What differs:\n  {table}\nGive the "
        "C++ host token ids instead of texts, or pass --min-agreement if so many may differ."
    )


def _template(tokenizer: Tokenizer, num_texts: int) -> dict[str, Any]:
    """Where the tokenizer's own tokens go around texts, read from an example.

    own: ids before each text, and after the last. own_types: the type id of each of them.
    text_types: the type id of each text's tokens.
    """
    example = tokenizer.encode("a", "a" if num_texts == 2 else None)
    owners = example.sequence_ids  # None for the tokenizer's own tokens
    own, text_types = [], []
    end = 0
    for text in range(num_texts):
        start = owners.index(text)
        own.append(example.ids[end:start])
        text_types.append(example.type_ids[start])
        end = start + owners.count(text)
    own.append(example.ids[end:])
    types = zip(example.type_ids, owners, strict=True)
    own_types = [kind for kind, owner in types if owner is None]
    return {"own": own, "own_types": own_types, "text_types": text_types}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads host-tokenizer",
        description="Put a bundle's tokenizer into it as the graph that the C++ host runs.",
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="DIR", help="made by `bitheads build`")
    add(
        "--texts",
        type=Path,
        metavar="FILE",
        help="texts like yours, one per line, to compare token ids on, beside some that are hard "
        "for tokenizers (default: 520 sentences that are shipped)",
    )
    add(
        "--min-agreement",
        type=float,
        default=1.0,
        help="fail below this share of texts with the tokenizer's own ids (default: %(default)s)",
    )
    add("--force", action="store_true", help="replace what an earlier call wrote")
    return parser


if __name__ == "__main__":
    sys.exit(main())
