"""Making a bundle: export, calibrate, compare with the source model, write aside, rename."""

from __future__ import annotations

import errno
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from bitheads import __version__
from bitheads.engine import bundle
from bitheads.engine.features.embedding import RANGES, Embedder
from bitheads.engine.features.spec import Calibration, FeatureSpec, check_spec
from bitheads.engine.files.whole_file import make_folder, sync, sync_tree
from bitheads.engine.heads.head_file import SUFFIX, read_head
from bitheads.engine.process.interrupts import interrupts_held_back
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.export.calibrate import calibrate
from bitheads.export.comparison.compared_texts import ComparedTexts, run_reference
from bitheads.export.comparison.odd_texts import LONGEST_RUN, odd_texts
from bitheads.export.comparison.parity import available_sessions, compare_session, failures
from bitheads.export.comparison.reference_model import ReferenceModel
from bitheads.export.config import MIN_LENGTH, BuildConfig, choose_layers
from bitheads.export.errors import ExportError
from bitheads.export.gpu_graph import SIMULATED, SIMULATOR, quantize_for_gpus
from bitheads.export.half_range import keep_in_range
from bitheads.export.int8 import quantize_graph, require_nncf
from bitheads.export.int8_weights import quantize_weights, require_openvino
from bitheads.export.onnx_graph import export_graph
from bitheads.export.plans.build_plan import build_plan, resolve_plan
from bitheads.export.source.encoder import Encoder, load_encoder
from bitheads.export.source.sentence_modules import (
    SentenceModules,
    plain_pooling,
    read_sentence_modules,
)
from bitheads.export.source.size_checks import check_output_room
from bitheads.export.texts import read_texts

Say = Callable[[str], None]
VERSIONED = ("torch", "transformers", "onnx", "onnxscript", "tokenizers")
VERSIONED_INT8 = {"int8": ("nncf", "openvino"), "int8_dynamic": ("openvino",)}


@plain_numbers()
def make_bundle(config: BuildConfig, say: Say = lambda message: None) -> bundle.Manifest:
    """Makes a bundle and returns its manifest, parity report included.

    The bundle is written aside and renamed when whole: whatever happens, the output folder holds
    the old bundle, the new one, or nothing.

    Args:
        say: called with one line for each step.

    Raises ExportError for what cannot be built, and if the graph's sign agreement with the
    source model is too low; other BitheadsErrors for unsound inputs.
    """
    config.check_output()
    if config.precision == "int8":
        require_nncf()
    if config.precision == "int8_dynamic":
        require_openvino()
    config = replace(config, plan=resolve_plan(config.plan, say))
    output = config.output_folder
    with _aside(output, config.force) as folder:
        manifest = _build_into(folder, config, say)
        (folder / bundle.MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
        build_plan(folder, manifest, config.plan, say)
    say(f"wrote {output}")
    return manifest


def _build_into(folder: Path, config: BuildConfig, say: Say) -> bundle.Manifest:
    say(f"loading encoder {config.source}")
    encoder = load_encoder(
        config.source,
        lambda num_weights: check_output_room(
            num_weights, config.precision, config.plan.precision, config.output_folder, folder
        ),
    )
    if encoder.source is not None:
        say(f"it is {encoder.source}")
    layers = choose_layers(config.layers, encoder.num_layers, config.layer_pooling)
    if config.layer_weights is not None and len(config.layer_weights) != len(layers):
        raise ExportError(
            f"--layer-weights: got {len(config.layer_weights)}, expected {len(layers)}, one for "
            f"each of the layers {list(layers)}."
        )
    usual_length = encoder.max_length if encoder.usual_length is None else encoder.usual_length
    max_length = usual_length if config.max_length is None else config.max_length
    if not MIN_LENGTH <= max_length <= encoder.max_length:
        raise ExportError(
            f"--max-length: got {max_length}, expected {MIN_LENGTH} to {encoder.max_length}, the "
            "encoder's limit."
        )
    config.plan.check_max_length(max_length)
    tokenizer_path = folder / bundle.TOKENIZER
    encoder.tokenizer.backend_tokenizer.no_truncation()
    encoder.tokenizer.backend_tokenizer.no_padding()
    encoder.tokenizer.backend_tokenizer.save(str(tokenizer_path))

    tokenizer = TextTokenizer(
        tokenizer_path, max_length, encoder.vocabulary, encoder.token_types, config.prefix
    )
    modules = _sentence_modules(config, encoder, layers, say)
    sentences, odd = _run_reference(config, encoder, tokenizer, max_length, layers, modules, say)

    calibration = calibrate(config, encoder.dim, sentences.layers)
    spec = FeatureSpec(
        encoder=encoder.name,
        weights_sha256=encoder.weights_sha256,
        layers=layers,
        layer_pooling=config.layer_pooling,
        quantization=config.quantization,
        order=config.order,
        dim=encoder.dim,
        layer_weights=config.layer_weights,
        calibration_sha256=None if calibration is None else calibration.sha256,
        prefix=config.prefix,
    )
    copied = _copy_heads(config, spec, folder / bundle.HEADS)
    written = [tokenizer_path]
    if calibration is not None:
        written.append(_write_tensors(folder / bundle.CALIBRATION, calibration.arrays()))
    embedder = None
    if modules is not None:
        embedder = _embedder(modules, sentences)
        written.append(_write_tensors(folder / bundle.EMBEDDING, embedder.weights))

    say(
        f"exporting layers {layers[0]} to {layers[-1]} of {encoder.num_layers} in "
        f"{config.graph_precision}"
    )
    graph = folder / bundle.GRAPH
    files = export_graph(encoder, layers, config.graph_precision, graph)
    in_half: dict[str, Any] = {}
    if config.graph_precision == "fp16":
        files, in_half = keep_in_range(
            files, encoder, layers, (sentences, odd), calibration, config, say
        )
    written += files
    if config.precision == "int8":
        batches = [batch.tokens for batch in sentences.batches]
        say(f"quantizing to int8 on {len(sentences.names)} texts in {len(batches)} batches")
        written += quantize_graph(graph, batches, folder, say)
    if config.precision == "int8_dynamic":
        say("rounding the weights to int8")
        written += quantize_weights(graph, folder)
    quantized: dict[str, Any] = {}
    if config.plan.precision is not None:
        batches = [batch.tokens for batch in sentences.batches]
        say(f"quantizing for GPUs to {config.plan.precision} on {len(sentences.names)} texts")
        files, quantized = quantize_for_gpus(
            graph, config.graph_precision, config.plan.precision, batches, folder
        )
        written += files

    parity = _compare(folder, config, layers, sentences, odd, calibration, embedder, say)
    parity["texts"] = len(sentences.names)
    parity["tokens"] = int(sentences.lengths.sum())
    parity["odd_texts"] = len(odd.names)
    if in_half:
        parity["float16"] = in_half
    if quantized:
        parity["gpu_graph"] = quantized
    say(f"feature spec {spec}; {copied} heads")
    return bundle.Manifest(
        spec=spec,
        encoder=bundle.EncoderInfo(
            model_type=encoder.model_type,
            num_layers=encoder.num_layers,
            attention_heads=encoder.attention_heads,
            max_length=max_length,
            pad_id=encoder.pad_id,
            precision=config.graph_precision,
            vocabulary=encoder.vocabulary,
            token_types=encoder.token_types,
        ),
        artifacts={path.name: bundle.Artifact.of(path) for path in written},
        versions=_versions(config, encoder),
        parity=parity,
        embedding=None if modules is None else modules.spec,
    )


def _sentence_modules(
    config: BuildConfig, encoder: Encoder, layers: tuple[int, ...], say: Say
) -> SentenceModules | None:
    """What makes the bundle's embeddings; None for a bundle without.

    Raises ExportError for a pooling that was asked for and cannot be had. Where it is the
    checkpoint that has modules, a bundle without embeddings is better than none.
    """
    if config.embedding == "none" or encoder.checkpoint is None:
        return None
    has_last = layers[-1] == encoder.num_layers
    if config.embedding == "auto":
        try:
            found = read_sentence_modules(encoder.checkpoint, encoder.dim, config.prefix)
        except ExportError as error:
            say(f"no embedding: {error}")
            return None
        if found is not None and not has_last:
            say(f"no embedding: it is made of layer {encoder.num_layers}, not among the layers")
        return found if has_last else None
    if not has_last:
        raise ExportError(
            f"--embedding {config.embedding}: got the layers {list(layers)}, expected the last "
            f"among them, {encoder.num_layers}, of which embeddings are made. Give others: "
            "--layers."
        )
    return plain_pooling(config.embedding, encoder.dim)


def _embedder(modules: SentenceModules, sentences: ComparedTexts) -> Embedder:
    embeddings = sentences.embeddings
    assert embeddings is not None, "where there are modules, the reference has embeddings"
    ranges = np.stack([embeddings.min(axis=0), embeddings.max(axis=0)])
    return Embedder(modules.spec, {**modules.weights, RANGES: ranges})


def _run_reference(
    config: BuildConfig,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    max_length: int,
    layers: tuple[int, ...],
    modules: SentenceModules | None,
    say: Say,
) -> tuple[ComparedTexts, ComparedTexts]:
    """What transformers makes of the sentences, and of odd texts."""
    texts = read_texts(config.calibration)
    sentences = {f"text {number}": text for number, text in enumerate(texts, 1)}
    odd = odd_texts(encoder.tokenizer, max_length, tokenizer.takes_pairs, config.prefix)
    say(f"running transformers in fp32 on {len(sentences)} sentences and {len(odd)} odd texts")
    reference = ReferenceModel(str(encoder.folder), max_length, config.prefix, modules)
    # The odd ones first: they find what is wrong.
    compared = run_reference(reference, tokenizer, odd, layers, encoder.pad_id, LONGEST_RUN, say)
    return (
        run_reference(reference, tokenizer, sentences, layers, encoder.pad_id, say=say),
        compared,
    )


def _compare(
    folder: Path,
    config: BuildConfig,
    layers: tuple[int, ...],
    sentences: ComparedTexts,
    odd: ComparedTexts,
    calibration: Calibration | None,
    embedder: Embedder | None,
    say: Say,
) -> dict[str, Any]:
    report: dict[str, Any] = {"sessions": {}}
    sessions: dict[str, tuple[str, str, str | None]] = {
        f"{backend} {precision}": (backend, precision, None)
        for backend, precision in available_sessions(config.quantized)
    }
    if (precision := config.plan.precision) is not None:
        sessions[f"{SIMULATED} {precision}"] = (SIMULATOR, "fp32", bundle.GPU_GRAPHS[precision])
    for name, (backend, precision, graph) in sessions.items():
        result = compare_session(
            folder,
            layers,
            backend,
            precision,
            sentences,
            odd,
            calibration,
            config.layer_weights,
            graph,
            embedder,
        )
        report["sessions"][name] = result
        pooled = result["pooled"]
        cosine = result.get("embedding", {}).get("least_cosine")
        say(
            f"{name}: {pooled['sign_agreement']:.3%} of signs as in torch fp32, "
            f"relative error {pooled['relative_error']:.3%}"
            + ("" if cosine is None else f", embeddings' cosines {cosine:.6f} and more")
        )
    if not report["sessions"]:
        raise ExportError(
            "no backend is installed to compare the graph with its source. "
            "Type: pip install bitheads"
        )
    if found := failures(report, config):
        raise ExportError(
            "the graph does not match its source:\n  " + "\n  ".join(found) + "\nNothing was "
            "written. Try --precision fp32 (for int8: int8_dynamic or fp16; for int8_dynamic: "
            "fp16; for a GPU's fp8 or int8: no --plan-precision; for what is calibrated: more "
            "--calibration texts), or if you accept this, --min-sign-agreement (signs), "
            "--max-relative-error (uint8, float16)."
        )
    return report


def _copy_heads(config: BuildConfig, spec: FeatureSpec, target: Path) -> int:
    """Copies the heads asked for, or the shipped ones that belong to the spec."""
    source = config.heads or Path(str(files("bitheads.export") / "heads" / spec.encoder))
    if config.heads is not None and not source.is_dir():
        raise ExportError(f"--heads {source}: no such folder.")
    chosen = []
    for path in sorted(source.glob(f"*{SUFFIX}")) if source.is_dir() else []:
        head = read_head(path)
        if config.heads is not None:
            check_spec(f"--heads {path}", head.spec, spec)
        if head.spec.id == spec.id:
            chosen.append(path)
    target.mkdir()
    for path in chosen:
        shutil.copyfile(path, target / path.name)
    return len(chosen)


def _write_tensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Path:
    path.write_bytes(save(dict(arrays)))  # `save_file` lets nobody else read it
    return path


def _versions(config: BuildConfig, encoder: Encoder) -> dict[str, str]:
    names = VERSIONED + VERSIONED_INT8.get(config.precision, ())
    found = {name: version(name) for name in names}
    if encoder.source is not None:
        found["encoder"] = encoder.source
    return {"bitheads": __version__, "python": platform.python_version(), **found}


@contextmanager
def _aside(output: Path, force: bool) -> Iterator[Path]:
    """A folder beside `output` that takes its place at the end, or vanishes on any failure."""
    output = output.resolve()  # of a link to a folder, what it leads to is replaced
    try:
        make_folder(output.parent)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    except OSError as error:
        raise ExportError(
            f"--output {output}: cannot be written ({error}). Choose a folder you may write to."
        ) from error
    try:
        yield folder
        folder.chmod(0o755)
        sync_tree(folder)
        with interrupts_held_back():
            _put_in_place(folder, output, force)
            sync(output.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ExportError(
                f"--output {output}: something else was written there meanwhile, another build "
                "maybe, and stays. Choose another output, or pass --force to replace it."
            ) from error
        raise ExportError(
            f"--output {output}: cannot be written ({error}). Free some space, or choose another."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, output: Path, force: bool) -> None:
    """Renames, which replaces nothing but an empty folder; with `force` makes room for that first.

    Raises OSError if a folder or file is there that may not be replaced.
    """
    replaced = None
    if force and output.exists():
        replaced = Path(tempfile.mkdtemp(prefix=f".{output.name}.old-", dir=output.parent))
        output.rename(replaced / output.name)
    try:
        folder.rename(output)
    except BaseException:
        if replaced is not None:
            try:
                (replaced / output.name).rename(output)
            except OSError:
                if not output.exists():
                    raise  # it stays where it was put aside
                # Another build with --force was faster: what it replaced is as good as replaced.
            shutil.rmtree(replaced, ignore_errors=True)
        raise
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)
