"""Opens a checkpoint or an exported file with the predictor that runs it.

Imports neither torch nor SAM2 for an exported file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartm_model.inference.onnx_predictor import OnnxPredictor

if TYPE_CHECKING:
    from sartm_model.inference.predictor import Predictor


def open_predictor(checkpoint: str | Path, **settings: Any) -> Predictor | OnnxPredictor:
    """Return an `OnnxPredictor` where the name ends in `.onnx`, otherwise a `Predictor`.

    Args:
        checkpoint: a file, or 'demo' or 'demo_depth', which come with the package.
        settings: the keyword arguments of either.

    Raises:
        SartmError: as either does.
    """
    if Path(checkpoint).suffix == '.onnx':
        return OnnxPredictor(checkpoint, **settings)
    from sartm_model.inference.predictor import Predictor

    return Predictor(checkpoint, **settings)
