"""The data sets by name; `open_dataset` opens a split of one."""

from __future__ import annotations

from pathlib import Path

from sartm_model.data.base import PairDataset
from sartm_model.data.declared import open_declared
from sartm_model.data.deliver import Deliver, DeliverVal
from sartm_model.data.fmb import Fmb
from sartm_model.data.folder import SplitFolders
from sartm_model.data.listed import ListedFrames
from sartm_model.data.mfnet import MFNet
from sartm_model.data.nyuv2 import NyuV2, NyuV2Hha
from sartm_model.data.pst900 import Pst900
from sartm_model.data.scut_seg import ScutSeg
from sartm_model.data.soda import Soda, SodaSynthetic
from sartm_model.data.urbanlf import UrbanLfReal, UrbanLfSyn
from sartm_model.data.zju_rgb_p import ZjuRgbP, ZjuRgbP9
from sartm_model.errors import SartmError

ON_DISK: dict[str, type[MFNet] | type[SplitFolders] | type[ListedFrames]] = {
    'mfnet': MFNet,
    'pst900': Pst900,
    'fmb': Fmb,
    'soda': Soda,
    'soda_synthetic': SodaSynthetic,
    'scut_seg': ScutSeg,
    'deliver': Deliver,
    'deliver_val': DeliverVal,
    'nyuv2': NyuV2,
    'nyuv2_hha': NyuV2Hha,
    'urbanlf_real': UrbanLfReal,
    'urbanlf_syn': UrbanLfSyn,
    'zju_rgb_p': ZjuRgbP,
    'zju_rgb_p9': ZjuRgbP9,
}
NAMES = (*ON_DISK, 'folder', 'synthetic')


def open_dataset(name: str, root: Path | None, split: str) -> PairDataset:
    """Open a split of a data set.

    Args:
        name: one of `NAMES`.
        root: the data set's folder; for 'folder' the YAML file that declares it (see `declared`);
            None for 'synthetic', which needs none.
        split: for 'mfnet' the name of a `<split>.txt` under the root; for 'pst900' and 'fmb'
            'train' or 'test'; for 'folder' a split of the file; for the others one of their
            `SPLITS`.

    Raises:
        SartmError: unknown name or split, or the folder is not such a data set.
    """
    if name == 'synthetic':
        from sartm_model.data.synthetic import SyntheticScenes  # draws with OpenCV

        return SyntheticScenes(split)
    if name == 'folder':
        return open_declared(declaration_path(root), split)
    if name not in ON_DISK:
        raise SartmError(f'no data set is called {name!r}; choose one of {", ".join(NAMES)}')
    return ON_DISK[name](open_root(name, root), split)


def open_root(name: str, root: Path | None) -> Path:
    """Return the folder of the data set `name`. Raises SartmError if it is None or no folder."""
    if root is None:
        raise SartmError(f'the data set {name} needs its folder as root')
    root = Path(root)
    if not root.is_dir():
        raise SartmError(f'{root} is not a folder; expected the root of {name}')
    return root


def declaration_path(root: Path | None) -> Path:
    """Return the YAML file of the data set 'folder'. Raises SartmError if it is None."""
    if root is None:
        raise SartmError(
            'the data set folder needs as root the YAML file that declares it; sartm data init DIR '
            'writes one'
        )
    return Path(root)
