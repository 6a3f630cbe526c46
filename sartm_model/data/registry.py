"""Data sets of RGB-thermal frames; `open_dataset` opens one by its name."""

from __future__ import annotations

from pathlib import Path

from sartm_model.data.base import PairDataset
from sartm_model.errors import SartmError

NAMES = ('mfnet', 'pst900', 'fmb', 'synthetic')


def open_dataset(name: str, root: Path | None, split: str) -> PairDataset:
    """The frames of a split.

    Args:
        name: one of `NAMES`.
        root: the data set's folder; None for 'synthetic', which needs none.
        split: for 'mfnet' the name of a `<split>.txt` under the root; for 'pst900' and 'fmb'
            'train' or 'test'; for 'synthetic' 'train', 'val' or 'test'.

    Raises:
        SartmError: unknown name or split, or the folder is not such a data set.
    """
    if name == 'synthetic':
        from sartm_model.data.synthetic import SyntheticScenes

        return SyntheticScenes(split)
    if name not in NAMES:
        raise SartmError(f'no data set is called {name!r}; choose one of {", ".join(NAMES)}')
    root = open_root(name, root)
    if name == 'mfnet':
        from sartm_model.data.mfnet import MFNet

        return MFNet(root, split)
    if name == 'pst900':
        from sartm_model.data.pst900 import Pst900

        return Pst900(root, split)
    from sartm_model.data.fmb import Fmb

    return Fmb(root, split)


def open_root(name: str, root: Path | None) -> Path:
    """The folder of a data set on disk. Raises SartmError where there is none."""
    if root is None:
        raise SartmError(f'the data set {name} needs its folder as root')
    root = Path(root)
    if not root.is_dir():
        raise SartmError(f'{root} is not a folder; expected the root of {name}')
    return root
