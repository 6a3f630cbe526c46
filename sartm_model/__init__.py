"""SARTM: RGB-thermal semantic segmentation on SAM2, free of ROS.

    from sartm_model import Predictor

    labels = Predictor('demo').predict(rgb, thermal).labels

`Predictor` runs a checkpoint on numpy images; the node and the `sartm` command are built on it.
`LabelSpace` names the classes. Both are imported when they are first used: importing this package
imports nothing else and sets nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartm_model.inference.predictor import Predictor
    from sartm_model.labels import LabelSpace

__all__ = ['LabelSpace', 'Predictor']


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == 'Predictor':
        from sartm_model.inference.predictor import Predictor

        return Predictor
    if name == 'LabelSpace':
        from sartm_model.labels import LabelSpace

        return LabelSpace
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
