"""The frames of a run as a Lightning data module: what it trains on and what it measures.

They are no part of the module that trains, which Lightning copies for the averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
from torch.utils.data import ConcatDataset, DataLoader
from tqdm import tqdm

from sartm_model.config import TrainConfig
from sartm_model.data.eval_frames import EvalDataset
from sartm_model.data.sampling import ResumableBatchSampler, TrainingSamples
from sartm_model.data.sources import modalities_of, open_frames
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.modalities import select
from sartm_model.training.processes import announce, ignore_signals


class TrainingData(pl.LightningDataModule):
    """Opens the data sets of a run and loads their frames.

    Args:
        config: of the run.
        label_space: of the run.

    Attributes:
        train_samples: what batches are drawn from.
        val_frames: all frames of `data.val` and `data.more_val`.
        val_spaces: the label space of each of these data sets: that of the run, or a view of it.
        val_names: the name of each of them in the figures; no two are equal.
        class_weights: of the loss, from the frequencies of the classes; empty without
            `loss.class_balance`.

    Raises:
        SartmError: a data set cannot be used, see `open_source`.
    """

    def __init__(self, config: TrainConfig, label_space: LabelSpace) -> None:
        super().__init__()
        self.config = config
        modalities = select(config.data.modality, config.model.modalities)
        self.train_samples = TrainingSamples(
            config.data, label_space, modalities, config.seed, config.devices * config.nodes
        )
        self.class_weights: list[float] = []
        if config.loss.class_balance:
            self.class_weights = self.train_samples.class_weights(config.loss.class_balance)
            named = zip(label_space.classes, self.class_weights, strict=True)
            announce(f'class weights: {", ".join(f"{name} {w:.3g}" for name, w in named)}')
        sources = [config.data.val, *config.data.more_val]
        measured = []
        for number, source in enumerate(sources):
            given = modalities_of(source, modalities)
            frames = open_frames(source, config.data, label_space, given)
            measured.append(EvalDataset(frames, given, number))
        self.val_frames: ConcatDataset = ConcatDataset(measured)
        self.val_spaces = [frames.dataset.label_space for frames in measured]
        self.val_names = _number_duplicates([source.dataset for source in sources])

    def setup(self, stage: str) -> None:
        """Read every frame that is measured, and its labels, before the first step of a new run.

        A frame that has no labels, or cannot be read, would otherwise stop the run only at its
        first measurement. Raises SartmError.
        """
        if stage == 'fit' and self._trainer().ckpt_path is None:
            loader = self._val_loader(self.config.data.workers)
            for _ in tqdm(loader, desc='data.val', unit='frame', disable=None):
                pass

    def train_dataloader(self) -> DataLoader:
        """The batches of this process, starting with the first that was not trained on yet."""
        data, trainer = self.config.data, self._trainer()
        first = trainer.global_step * self.config.optim.accumulate
        return DataLoader(
            self.train_samples,
            batch_sampler=ResumableBatchSampler(
                first, data.batch_size, trainer.global_rank, trainer.world_size
            ),
            num_workers=data.workers,
            worker_init_fn=ignore_signals,
            persistent_workers=data.workers > 0,
            pin_memory=trainer.strategy.root_device.type == 'cuda',
        )

    def val_dataloader(self) -> DataLoader:
        """The validation frames of this process, one at a time."""
        return self._val_loader(min(2, self.config.data.workers))

    def _val_loader(self, workers: int) -> DataLoader:
        """Load them by so many worker processes; cached frames need none.

        Raises SartmError if there are fewer frames than processes of the run.
        """
        trainer = self._trainer()
        processes = trainer.world_size
        if len(self.val_frames) < processes:
            raise SartmError(
                f'data.val has {len(self.val_frames)} frames for {processes} processes; expected '
                f'at least one frame for each'
            )
        return DataLoader(
            self.val_frames,
            batch_size=None,
            sampler=range(trainer.global_rank, len(self.val_frames), processes),
            num_workers=0 if self.config.data.cache else workers,
            worker_init_fn=ignore_signals,
        )

    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None
        return self.trainer


def _number_duplicates(names: Sequence[str]) -> list[str]:
    """Number the names that occur before: folder, folder_2."""
    return [
        name if name not in names[:place] else f'{name}_{names[: place + 1].count(name)}'
        for place, name in enumerate(names)
    ]
