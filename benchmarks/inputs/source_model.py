"""The model that a bundle was made of."""

from __future__ import annotations

from pathlib import Path

from bitheads.engine.bundle import Manifest
from bitheads.engine.errors import InputError
from bitheads.export.source.encoder import Encoder, load_encoder


def load_source(name: str, bundle_folder: Path, manifest: Manifest) -> Encoder:
    """Loads it. Raises InputError if its weights are not those of the bundle."""
    encoder = load_encoder(name)
    if encoder.weights_sha256 != manifest.spec.weights_sha256:
        raise InputError(f"--encoder {name}: its weights are not those of bundle {bundle_folder}.")
    return encoder
