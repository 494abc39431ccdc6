"""`bitheads host-tokenizer`: a bundle's tokenizer as a graph, for the C++ host.

openvino-tokenizers makes an OpenVINO graph of it, which any process runs without Python. The graph
only splits text: it adds no tokens of the tokenizer's own and cuts nothing. The host does both, as
`engine.texts.tokenize` does, from the template that is written beside it.

    host/tokenizer.xml, .bin    texts [n] -> begins, ends int32 [n], ids int32 [tokens]
    host/tokenizer_graph.json   templates, hashes, the tokenizer it was made of, the comparison

It is a cache of tokenizer.json, for one line of OpenVINO versions, so bundle.json does not list it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitheads.engine.bundle import TOKENIZER, Artifact, read_manifest
from bitheads.engine.commands.command_line import exit_code
from bitheads.engine.files.whole_file import write_whole
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.engine.process.quiet_import import import_quietly
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.export.errors import ExportError

FORMAT_VERSION = 1
FOLDER = "host"
DESCRIPTION = "tokenizer_graph.json"
GRAPH, WEIGHTS = "tokenizer.xml", "tokenizer.bin"

BERT_CONTROL = r"([\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\p{Cf}"
WIDER_CONTROL = BERT_CONTROL + r"\p{Co}\x{FFFD}"
LEFT_BY_LOWER = "\N{MICRO SIGN}\N{GREEK SMALL LETTER FINAL SIGMA}"
FIRST_PRIVATE_USE = 0xE000

TokenIds = NDArray[np.int32]


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
        texts: to compare on; some that are hard for tokenizers are added.
        min_agreement: least share of `texts` with the very same ids.

    Raises ExportError if openvino-tokenizers is missing or cannot convert the tokenizer, if ids
    differ, or if the folder is there (without `force`); BundleError for what is no bundle.
    """
    manifest = read_manifest(bundle)
    folder = bundle / FOLDER
    if (folder / DESCRIPTION).exists() and not force:
        raise ExportError(f"{folder} is there already. Pass --force to replace it.")
    prefix = manifest.spec.prefix
    TextTokenizer(bundle / TOKENIZER, manifest.encoder.max_length, prefix=prefix)  # or raises
    own = Tokenizer.from_file(str(bundle / TOKENIZER))
    own.no_padding()
    own.no_truncation()
    with TemporaryDirectory() as name:
        made = Path(name)
        _write_graph(bundle / TOKENIZER, made)
        report = _compare(own, made / GRAPH, [prefix + text for text in texts], min_agreement)
        description = {
            "format_version": FORMAT_VERSION,
            "tokenizer_sha256": manifest.artifacts[TOKENIZER].sha256,
            "files": {name: asdict(Artifact.of(made / name)) for name in (GRAPH, WEIGHTS)},
            "single": _template(own, 1),
            "pair": _template(own, 2),
            "agreement": report,
            "versions": {name: version(name) for name in ("openvino", "openvino-tokenizers")},
        }
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        # Last, what names the others: a write that is cut short leaves nothing that is believed.
        for file in (WEIGHTS, GRAPH):
            write_whole(folder / file, (made / file).read_bytes())
    content = json.dumps({**description, "sha256": digest}, indent=2) + "\n"
    write_whole(folder / DESCRIPTION, content.encode())
    return report


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


def _write_graph(tokenizer: Path, folder: Path) -> None:
    """The graph that splits texts, as begins and ends of each text's ids among all: no padding."""
    if find_spec("openvino_tokenizers") is None:
        raise ExportError(
            "the C++ host's tokenizer needs the package 'openvino-tokenizers'. Type: "
            "pip install 'bitheads[host]'"
        )
    from transformers import PreTrainedTokenizerFast

    from bitheads.engine.sessions.openvino_core import openvino

    convert_tokenizer = import_quietly("openvino_tokenizers").convert_tokenizer
    try:
        fast = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer))  # type: ignore[no-untyped-call]
        converted = convert_tokenizer(fast, add_special_tokens=False, with_detokenizer=False)
        _normalize_as_bert(converted)
        # What comes after that op is cutting, special tokens and padding.
        (cutting,) = [op for op in converted.get_ops() if op.get_type_name() == "Truncate"]
        outputs = [cutting.input(i).get_source_output() for i in range(3)]
        for output, name in zip(outputs, ("begins", "ends", "ids"), strict=True):
            output.get_tensor().set_names({name})
        model = openvino.Model(outputs, converted.get_parameters(), "tokenizer")
        openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)
    except Exception as error:  # both libraries raise bare ones
        raise ExportError(
            f"{tokenizer}: openvino-tokenizers cannot convert it ({error}). Give the C++ host "
            "token ids instead of texts."
        ) from error


def _normalize_as_bert(model: Any) -> None:
    """Mends two steps of the graph that are not quite those of BERT's normalizer.

    BERT drops every character of the categories Cc, Cf and Co, and the replacement character;
    private use characters are how old telephones wrote emoji. And it makes letters small where the
    graph folds their case, which changes LEFT_BY_LOWER, too, of the letters in use. So these pass
    the folding as private use characters, of which there are none left by then.
    """
    opset15 = import_quietly("openvino.opset15")
    pipeline = import_quietly("openvino_tokenizers.tokenizer_pipeline")

    ops = model.get_ordered_ops()
    for op in ops:
        if op.get_type_name() == "RegexNormalization":
            pattern = op.input_value(4).get_node().get_data().tobytes().decode()
            if pattern.startswith(BERT_CONTROL):
                wider = pattern.replace(BERT_CONTROL, WIDER_CONTROL).encode()
                constant = opset15.constant(np.frombuffer(wider, np.uint8))
                op.input(4).replace_source_output(constant.output(0))
                break
    else:
        return
    for op in ops:
        if op.get_type_name() == "CharsMapNormalization" and op.get_attributes()["case_fold"]:
            users = [list(output.get_target_inputs()) for output in op.outputs()]
            before, after = [op.input_value(i) for i in range(4)], op.outputs()
            for i, letter in enumerate(LEFT_BY_LOWER):
                aside = chr(FIRST_PRIVATE_USE + i)
                before = pipeline.RegexNormalizationStep(letter, aside).get_ov_subgraph(before)
                after = pipeline.RegexNormalizationStep(aside, letter).get_ov_subgraph(after)
            for i, output in enumerate(before[:4]):
                op.input(i).replace_source_output(output)
            for inputs, output in zip(users, after, strict=False):
                for place in inputs:
                    place.replace_source_output(output)


def run_graph(graph: Path, texts: Sequence[str]) -> list[TokenIds]:
    """Token ids of each text, int32, as the C++ host gets them."""
    from bitheads.engine.sessions.openvino_core import openvino, the_core

    core = the_core()
    core.add_extension(str(import_quietly("openvino_tokenizers")._ext_path))
    compiled = core.compile_model(graph, "CPU")
    found = compiled(openvino.Tensor(list(texts)))
    begins, ends, ids = (found[name] for name in ("begins", "ends", "ids"))
    return [ids[begin:end] for begin, end in zip(begins, ends, strict=True)]


def _compare(
    own: Tokenizer, graph: Path, texts: Sequence[str], min_agreement: float
) -> dict[str, Any]:
    """Shares of texts with the very same ids. Raises ExportError below `min_agreement`."""
    differing = list(_differing(own, run_graph(graph, texts), texts))
    same = len(texts) - len(differing)
    if same < min_agreement * len(texts):
        text, expected, got = differing[0]
        raise ExportError(
            f"the tokenizer's graph: token ids of {same} of {len(texts)} texts are its own, "
            f"expected at least {min_agreement:.2%}. The first that differs: {text[:80]!r}, "
            f"got {got[:20]}, expected {expected[:20]}. Give the C++ host token ids instead of "
            "texts, or pass --min-agreement if so many may differ."
        )
    return {"texts": len(texts), "same": same}


def _differing(
    own: Tokenizer, got: Sequence[TokenIds], texts: Sequence[str]
) -> Iterator[tuple[str, list[int], list[int]]]:
    encodings = own.encode_batch_fast(list(texts), add_special_tokens=False)
    for text, encoding, ids in zip(texts, encodings, got, strict=True):
        if encoding.ids != ids.tolist():
            yield text, encoding.ids, ids.tolist()


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
        help="texts like yours, one per line, to compare token ids on (default: 520 sentences that "
        "are shipped)",
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
