"""The data sets by name; `open_dataset` opens a split of one.

To add a data set on disk: a file beside this one with a `PublishedDataset`, and one line here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sartm_model.errors import SartmError

if TYPE_CHECKING:
    from sartm_model.data.base import FrameDataset
    from sartm_model.data.published import PublishedDataset

ON_DISK = {
    'mfnet': 'sartm_model.data.mfnet:DATASET',
    'pst900': 'sartm_model.data.pst900:DATASET',
    'fmb': 'sartm_model.data.fmb:DATASET',
    'soda': 'sartm_model.data.soda:REAL',
    'soda_synthetic': 'sartm_model.data.soda:SYNTHETIC',
    'scut_seg': 'sartm_model.data.scut_seg:DATASET',
    'deliver': 'sartm_model.data.deliver:DATASET',
    'deliver_val': 'sartm_model.data.deliver:VAL_AS_TEST',
    'nyuv2': 'sartm_model.data.nyuv2:DATASET',
    'nyuv2_hha': 'sartm_model.data.nyuv2:DATASET_HHA',
    'urbanlf_real': 'sartm_model.data.urbanlf:REAL',
    'urbanlf_syn': 'sartm_model.data.urbanlf:SYNTHETIC',
    'zju_rgb_p': 'sartm_model.data.zju_rgb_p:DATASET',
    'zju_rgb_p9': 'sartm_model.data.zju_rgb_p:WITH_BACKGROUND',
}
"""Name -> module and name of its `PublishedDataset`. The module is imported when it is first used,
because the command line names the data sets and imports no NumPy."""

NAMES = (*ON_DISK, 'folder', 'synthetic')


def open_dataset(name: str, root: Path | None, split: str) -> FrameDataset:
    """Open a split of a data set.

    Args:
        name: one of `NAMES`.
        root: the data set's folder; for 'folder' the YAML file that declares it (see `declared`);
            None for 'synthetic', which needs none.
        split: for 'mfnet' the name of a `<split>.txt` under the root; for 'pst900' and 'fmb'
            'train' or 'test'; for 'folder' a split of the file; for the others one of their
            `splits` or `unions`.

    Raises:
        SartmError: unknown name or split, or the folder is not such a data set.
    """
    if name == 'synthetic':
        from sartm_model.data.synthetic import SyntheticScenes

        return SyntheticScenes(split)
    if name == 'folder':
        from sartm_model.data.declared import open_declared

        return open_declared(declaration_path(root), split)
    if name not in ON_DISK:
        raise SartmError(f'no data set is called {name!r}; choose one of {", ".join(NAMES)}')
    return published(name).open_split(open_root(name, root), split)


def published(name: str) -> PublishedDataset:
    """Return a published data set, one of `ON_DISK`."""
    module, _, value = ON_DISK[name].partition(':')
    return getattr(import_module(module), value)


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
