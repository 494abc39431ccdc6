"""The bundle format: one folder with all a host needs. This module is its only owner.

    bundle.json              this module's manifest
    encoder.onnx             the graph, with one output `hidden_{i}` per layer
    encoder_int8.xml, .bin   the same graph in int8, as OpenVINO IR; only if it was asked for
    encoder_int8_dynamic.xml, .bin  the same with weights alone in int8; only if it was asked for
    encoder.fp8.onnx, encoder.int8.onnx  the same for GPUs, quantized; only if asked for
    tokenizer.json           the encoder's tokenizer
    calibration.safetensors  per-feature constants, only for specs that have them
    embedding.safetensors    of the embedding, only where there is one (engine.features.embedding)
    heads/<task>.safetensors task heads, added and removed at any time (engine.heads.head_file)
    plans/                   TensorRT plans, a cache of the graph (engine.device.plan)

Every file but heads and plans is listed with its size and SHA-256; the manifest, each head and
each plan carry their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bitheads.engine.errors import BundleError, InputError
from bitheads.engine.features.embedding import Embedder, EmbeddingSpec
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.files import strict_json
from bitheads.engine.files.external_files import external_files

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
GRAPH = "encoder.onnx"
INT8_GRAPH = "encoder_int8.xml"
INT8_WEIGHTS = "encoder_int8.bin"
INT8_DYNAMIC_GRAPH = "encoder_int8_dynamic.xml"
INT8_DYNAMIC_WEIGHTS = "encoder_int8_dynamic.bin"
QUANTIZED_GRAPHS = {
    "int8": (INT8_GRAPH, INT8_WEIGHTS),
    "int8_dynamic": (INT8_DYNAMIC_GRAPH, INT8_DYNAMIC_WEIGHTS),
}
"""Precision of a CPU's products -> the OpenVINO IR that it runs, and the weights beside it."""
INT8_GROUP = 64
"""Features of a token, and inputs of an output's weights, that share a step in int8_dynamic."""
GPU_GRAPHS = {"fp8": "encoder.fp8.onnx", "int8": "encoder.int8.onnx"}
"""Precision of a plan's products -> the graph with quantized weights that it is made from."""
TOKENIZER = "tokenizer.json"
CALIBRATION = "calibration.safetensors"
EMBEDDING = "embedding.safetensors"
HEADS = "heads"
PRECISIONS = ("fp16", "fp32")

MAX_LAYERS, MAX_LENGTH, MAX_ROWS = 1 << 20, 1 << 24, 1 << 31


@dataclass(frozen=True)
class Artifact:
    """One file of the bundle: its size in bytes and its SHA-256."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Artifact:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return cls(path.stat().st_size, digest.hexdigest())


@dataclass(frozen=True)
class EncoderInfo:
    """What a host must know to feed the graph.

    Attributes:
        model_type: the encoder's family, such as "bert".
        num_layers: of the whole encoder, without the embedding layer.
        attention_heads: of the encoder; task heads use as many by default.
        max_length: most tokens a text may have; longer texts are cut.
        pad_id: token id of the padding; the model's own, which counts positions by it.
        precision: the floating-point type of encoder.onnx, "fp16" or "fp32". One in "fp16" has
            float32, in its outputs too, for what float16 cannot hold.
        vocabulary: rows of the table of tokens; every token id is below. None in bundles of
            versions that did not say, for which engine.sessions.embedding_rows looks at the graph.
        token_types: rows of the table of token types. None where the encoder reads none, or
            where `vocabulary` is None.
    """

    model_type: str
    num_layers: int
    attention_heads: int
    max_length: int
    pad_id: int
    precision: str
    vocabulary: int | None = None
    token_types: int | None = None


@dataclass(frozen=True)
class Manifest:
    """The contents of bundle.json.

    Attributes:
        versions: of the packages that wrote the bundle; and as "encoder" the model it is of and
            its commit, ORG/NAME@COMMIT, if it came from the hub.
        parity: the build's comparison with the source model, see export.comparison.parity.
        embedding: what a text's embedding is; None where the bundle gives none.
    """

    spec: FeatureSpec
    encoder: EncoderInfo
    artifacts: Mapping[str, Artifact]
    versions: Mapping[str, str]
    parity: Mapping[str, Any] = field(default_factory=dict)
    embedding: EmbeddingSpec | None = None

    @property
    def output_names(self) -> list[str]:
        """The graph's outputs, ascending."""
        return [f"hidden_{layer}" for layer in self.spec.layers]

    @property
    def quantized(self) -> list[str]:
        """The keys of QUANTIZED_GRAPHS whose graph is there, too."""
        return [
            precision
            for precision, files in QUANTIZED_GRAPHS.items()
            if all(name in self.artifacts for name in files)
        ]

    def sign_agreement(self, backend: str, precision: str) -> float | None:
        """Share of signs that the build found as torch in fp32 has them; None if it did not look.

        A build looks at the precisions that its own machine has.
        """
        try:
            found = self.parity["sessions"][f"{backend} {precision}"]["pooled"]["sign_agreement"]
        except (KeyError, TypeError):
            return None
        return float(found) if isinstance(found, int | float) else None

    def dumps(self) -> str:
        content = {
            "format_version": FORMAT_VERSION,
            "spec_id": self.spec.id,
            "spec": self.spec.to_json(),
            "encoder": asdict(self.encoder),
            "artifacts": {name: asdict(artifact) for name, artifact in self.artifacts.items()},
            "versions": dict(self.versions),
            "parity": dict(self.parity),
        }
        if self.embedding is not None:
            content["embedding"] = self.embedding.to_json()
        return json.dumps({**content, "sha256": _hash(content)}, indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Reads bundle.json. Raises BundleError if it is absent, malformed or of another version."""
    path = folder / MANIFEST
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8-sig"))
        version = content["format_version"]
    except FileNotFoundError as error:
        raise BundleError(
            f"bundle {folder}: no {MANIFEST} there. Make one with "
            f"`bitheads build --output {folder}`, or name the right folder."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"bundle {folder}: {MANIFEST} cannot be read ({error!r}). Export the bundle again."
        ) from error
    if type(version) is not int or version != FORMAT_VERSION:
        raise BundleError(
            f"bundle {folder}: got format version {version}, expected {FORMAT_VERSION}. "
            "Export it again with this version of bitheads, or install the version that wrote it."
        )
    try:
        embedding = content.get("embedding")
        manifest = Manifest(
            spec=FeatureSpec.from_json(content["spec"]),
            encoder=EncoderInfo(**content["encoder"]),
            artifacts={name: Artifact(**value) for name, value in content["artifacts"].items()},
            versions=content["versions"],
            parity=content["parity"],
            embedding=None if embedding is None else EmbeddingSpec.from_json(embedding),
        )
        _check_encoder(manifest.encoder)
        _check_artifacts(manifest)
        expected = content.pop("sha256")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"bundle {folder}: {MANIFEST} is malformed ({error!r}). Export the bundle again."
        ) from error
    if (got := _hash(content)) != expected:
        raise BundleError(
            f"bundle {folder}: {MANIFEST} was edited: got sha256 {got[:12]}..., expected "
            f"{str(expected)[:12]}.... Export the bundle again."
        )
    return manifest


def _check_encoder(encoder: EncoderInfo) -> None:
    """Raises ValueError or TypeError for what no encoder has."""
    least_and_most = {
        "num_layers": (1, MAX_LAYERS),
        "attention_heads": (1, MAX_LAYERS),
        "max_length": (1, MAX_LENGTH),
        "pad_id": (0, MAX_ROWS - 1),
        "vocabulary": (1, MAX_ROWS),
        "token_types": (1, MAX_ROWS),
    }
    for name, (least, most) in least_and_most.items():
        number = getattr(encoder, name)
        if number is None and name in ("vocabulary", "token_types"):
            continue
        if type(number) is not int or not least <= number <= most:
            raise ValueError(f"{name} is {number!r:.60}, expected {least} to {most}")
    if not isinstance(encoder.model_type, str) or encoder.precision not in PRECISIONS:
        raise ValueError(
            f"precision is {encoder.precision!r:.60}, expected one of {PRECISIONS}, and model_type "
            f"{encoder.model_type!r:.60}, expected a text"
        )
    rows = encoder.vocabulary
    if rows is not None and encoder.pad_id >= rows:
        raise ValueError(f"the padding's token id {encoder.pad_id} is not among {rows} tokens")


def _check_artifacts(manifest: Manifest) -> None:
    """Raises ValueError or TypeError unless every file that is read is listed."""
    wanted = {GRAPH, TOKENIZER}
    if manifest.spec.calibration_sha256 is not None:
        wanted.add(CALIBRATION)
    if manifest.embedding is not None:
        if manifest.spec.layers[-1] != manifest.encoder.num_layers:
            raise ValueError("it has an embedding, but not the last layer's states")
        wanted.add(EMBEDDING)
    if not isinstance(manifest.versions, dict) or not isinstance(manifest.parity, dict):
        raise TypeError("versions or parity is not an object")
    if missing := wanted - manifest.artifacts.keys():
        raise ValueError(f"{', '.join(sorted(missing))} not among the artifacts")
    for name, artifact in manifest.artifacts.items():
        if not is_plain_name(name):
            raise ValueError(f"the artifact {name!r:.60} is not a file in the bundle's own folder")
        if type(artifact.bytes) is not int or type(artifact.sha256) is not str:
            raise TypeError(f"the size of {name} is not a whole number, or its hash is not a text")


def is_plain_name(name: str) -> bool:
    """Whether it names a file of a folder, and nothing elsewhere."""
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & {*name}


def graph_file(precision: str) -> str:
    """The graph's file, for a session in this precision."""
    return QUANTIZED_GRAPHS[precision][0] if precision in QUANTIZED_GRAPHS else GRAPH


def graph_sha256(artifacts: Mapping[str, Artifact], graph: str = GRAPH) -> str:
    """The hash a plan is known by, from a manifest's artifacts: of the graph and its weights.

    Weights of a large graph are a file of their own, and two graphs may differ in nothing else.

    Args:
        graph: the graph's file; an IR always has its weights in a file of its own.
    """
    files = graph_files(artifacts, graph)
    hashes = [artifacts[name].sha256 for name in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def graph_files(artifacts: Mapping[str, Artifact], graph: str = GRAPH) -> list[str]:
    """The artifacts of a manifest that a graph is made of, or may be: weights have any name."""
    weights = {GRAPH: f"{GRAPH}.data", **dict(QUANTIZED_GRAPHS.values())}
    weights.update({name: f"{name}.data" for name in GPU_GRAPHS.values()})
    others = {TOKENIZER, CALIBRATION, EMBEDDING}
    for other, beside in weights.items():
        if other != graph:
            others |= {other, beside}
    return sorted(artifacts.keys() - others)


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def verify(folder: Path, manifest: Manifest) -> None:
    """Compares every listed file with its recorded size and hash.

    Raises BundleError for the first one that is absent or differs.
    """
    beside = set()
    for graph in (GRAPH, *GPU_GRAPHS.values()):
        try:
            beside |= external_files(folder / graph)
        except ValueError as error:
            raise BundleError(
                f"bundle {folder}: {graph} cannot be read ({error}). Export the bundle again."
            ) from error
    for name in sorted(beside):
        if name not in manifest.artifacts:
            raise BundleError(
                f"bundle {folder}: its graph reads the file {name!r:.200}, which is not among the "
                "artifacts, so nobody knows what is in it. Export the bundle again."
            )
    for name, expected in manifest.artifacts.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(
                f"bundle {folder}: {name} is missing. Copy the whole folder, or export it again."
            )
        actual = Artifact.of(path)
        if actual != expected:
            raise BundleError(
                f"bundle {folder}: {name} was changed: got {actual.bytes} bytes, sha256 "
                f"{actual.sha256[:12]}..., expected {expected.bytes} bytes, "
                f"{expected.sha256[:12]}.... Copy it again, or export the bundle again."
            )


def read_calibration(folder: Path, spec: FeatureSpec) -> Calibration | None:
    """The spec's per-feature constants, or None where it has none.

    Raises BundleError if the file does not hold what the spec names.
    """
    if spec.calibration_sha256 is None:
        return None
    calibration = load_calibration(folder / CALIBRATION, spec.dim)
    if calibration.sha256 != spec.calibration_sha256:
        raise BundleError(
            f"bundle {folder}: {CALIBRATION} has the hash {calibration.sha256[:12]}..., expected "
            f"{spec.calibration_sha256[:12]}.... Export the bundle again."
        )
    return calibration


def read_embedder(folder: Path, manifest: Manifest) -> Embedder | None:
    """What makes embeddings of the last layer's states; None where the bundle gives none.

    Raises BundleError if the file does not hold what the manifest says.
    """
    if manifest.embedding is None:
        return None
    path = folder / EMBEDDING
    try:
        embedder = Embedder(manifest.embedding, load_file(path))
        embedder.check(manifest.spec.dim)
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise BundleError(
            f"bundle {folder}: {EMBEDDING} does not fit ({error}). Export the bundle again."
        ) from error
    return embedder


def require_embedder(embedder: Embedder | None) -> Embedder:
    """What `read_embedder` gave. Raises InputError if it gave none."""
    if embedder is None:
        raise InputError(
            "embeddings: this bundle gives none. Build it again with --embedding and a pooling, "
            "such as: bitheads build --embedding mean"
        )
    return embedder


def load_calibration(path: Path, dim: int) -> Calibration:
    """Reads a calibration file; every array is float32 [dim]. Raises BundleError otherwise."""
    try:
        arrays = load_file(path)
        calibration = Calibration(**arrays)
    except (OSError, SafetensorError, TypeError) as error:
        raise BundleError(f"calibration {path}: cannot be read ({error}).") from error
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.shape != (dim,) or not np.isfinite(array).all():
            raise BundleError(
                f"calibration {path}: {name} is {array.dtype} {list(array.shape)}, expected "
                f"finite float32 [{dim}]. It belongs to another encoder, or is damaged."
            )
    return calibration
