"""bitheads runtime: one encoder pass over a text, any number of predictions from its bits.

from engine import Engine

engine = Engine.load("bundles/all-MiniLM-L6-v2")
predictions = engine.predict(["The plot is thin, but what a cast!"])
predictions["sentiment"].top
"""

from engine.engine import Engine, TaskInfo
from engine.errors import (
    BackendError,
    BitheadsError,
    BundleError,
    ClosedError,
    DeviceMemoryError,
    ForkedError,
    HeadError,
    InputError,
    PlanError,
    SpecMismatchError,
    StoreError,
    UnknownTaskError,
)
from engine.pack import KernelsInfo, kernels_info
from engine.types import (
    Calibration,
    FeatureSpec,
    LayerPooling,
    Order,
    PackedFeatures,
    PositionPooling,
    Prediction,
    Predictions,
    Quantization,
    Stats,
)

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BitheadsError",
    "BundleError",
    "Calibration",
    "ClosedError",
    "DeviceMemoryError",
    "Engine",
    "FeatureSpec",
    "ForkedError",
    "HeadError",
    "InputError",
    "KernelsInfo",
    "LayerPooling",
    "Order",
    "PackedFeatures",
    "PlanError",
    "PositionPooling",
    "Prediction",
    "Predictions",
    "Quantization",
    "SpecMismatchError",
    "Stats",
    "StoreError",
    "TaskInfo",
    "UnknownTaskError",
    "kernels_info",
]
