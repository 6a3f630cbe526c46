"""`sartm train` with stage `ma_clip`: train the adapters of MA-CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sartm_model.config import ClipTowerConfig, SourceConfig, TrainConfig, to_dict
from sartm_model.data.sampling import ResumableBatchSampler
from sartm_model.data.sources import label_space_of_run, modalities_of, open_frames
from sartm_model.data.transforms import network_inputs
from sartm_model.errors import SartmError
from sartm_model.models.segrgbx.ma_clip import check_model, split_attentions, to_clip
from sartm_model.models.segrgbx.ma_clip_adapters import adapters_of, add_adapters, write_adapters
from sartm_model.models.state_dict import sha256_of
from sartm_model.training.clip import RANDOM, load_clip, tower_config
from sartm_model.training.ma_clip.embeddings import ALTERNATIVES
from sartm_model.training.ma_clip.loss import contrastive_loss
from sartm_model.training.ma_clip.prompts import prompt_words, sensor_of
from sartm_model.training.module import lr_factor
from sartm_model.training.processes import ignore_signals
from sartm_model.training.text_teacher import encode

ADAPTERS_FILE = 'ma_clip.safetensors'


class PromptedImage(NamedTuple):
    """An image as the image tower takes it, float32 `[3, S, S]`, and the words of its prompts.

    In a batch the image has a leading B, and the words are a list.
    """

    image: Tensor
    words: str


class PromptedImages(Dataset):
    """The images of several data sets with the words of their prompts.

    Image number i of a training run depends on the seed and on i: a data set is drawn by weight,
    then a frame, then a modality that it has. The images are whole and not augmented (ours).

    Args:
        config: of the run.
        sources: the data sets.
        tower: what the images are for.
        size: of its images, height and width.
        in_order: whether the images are, instead, each of each frame in order.
    """

    def __init__(
        self,
        config: TrainConfig,
        sources: Sequence[SourceConfig],
        tower: ClipTowerConfig,
        size: tuple[int, int],
        in_order: bool = False,
    ) -> None:
        self.config = config
        self.sources = sources
        self.tower = tower
        self.size = size
        self.modalities = [modalities_of(source, config.model.modalities) for source in sources]
        space = label_space_of_run(config)
        self.datasets = [
            open_frames(source, config.data, space, names)
            for source, names in zip(sources, self.modalities, strict=True)
        ]
        weights = np.array([source.weight for source in sources], float)
        self.probabilities = weights / weights.sum()
        self.order = [
            (number, index, name)
            for number, dataset in enumerate(self.datasets)
            for index in range(len(dataset))
            for name in self.modalities[number]
        ]
        self.in_order = in_order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> PromptedImage:
        if self.in_order:
            return self._image(*self.order[index])
        rng = np.random.default_rng([self.config.seed, index])
        number = int(rng.choice(len(self.sources), p=self.probabilities))
        frame = int(rng.integers(len(self.datasets[number])))
        names = self.modalities[number]
        return self._image(number, frame, names[int(rng.integers(len(names)))])

    def _image(self, number: int, index: int, modality: str) -> PromptedImage:
        frame = self.datasets[number][index]
        images = {
            name: torch.from_numpy(np.ascontiguousarray(image))
            for name, image in frame.select(self.modalities[number]).items()
        }
        image = to_clip(network_inputs(images)[modality], self.tower, self.size)[0]
        dataset = self.sources[number].dataset
        words = prompt_words(modality, dataset, frame.condition, self.config.ma_clip.words)
        return PromptedImage(image, words)


class MaClipTraining(pl.LightningModule):
    """Trains the adapters of an image tower; the text tower stays as it is.

    Args:
        config: of the run.
        clip: a model of open_clip, to whose image tower adapters are added.
        tokenizer: of the model.
        train_images, val_images: what to train on, and what to measure on.

    Attributes:
        tower: the image tower with adapters.
        texts: words of an image -> embedding of its prompts, `[D]`.
    """

    def __init__(
        self,
        config: TrainConfig,
        clip: Any,
        tokenizer: Any,
        train_images: PromptedImages,
        val_images: PromptedImages,
    ) -> None:
        super().__init__()
        self.config = config
        self.train_images, self.val_images = train_images, val_images
        self.tower = clip.visual.train()
        self.scale = float(clip.logit_scale.detach().exp())
        split_attentions(self.tower)
        add_adapters(self.tower, config.ma_clip.rank)
        # A function, so that Lightning does not take the text tower for a part of this module.
        self._encode: Any = partial(encode, clip, tokenizer, templates=config.ma_clip.templates)
        self.texts: dict[str, Tensor] = {}

    def train_dataloader(self) -> DataLoader:
        """The batches of this process."""
        data, trainer = self.config.data, self.trainer
        sampler = ResumableBatchSampler(0, data.batch_size, trainer.global_rank, trainer.world_size)
        return DataLoader(
            self.train_images,
            batch_sampler=sampler,
            num_workers=data.workers,
            worker_init_fn=ignore_signals,
        )

    def val_dataloader(self) -> DataLoader:
        """All images of the frames of `data.val` and `data.more_val`."""
        data = self.config.data
        return DataLoader(
            self.val_images,
            data.batch_size,
            num_workers=data.workers,
            worker_init_fn=ignore_signals,
        )

    def training_step(self, batch: PromptedImage, index: int) -> Tensor:
        """The loss of a batch."""
        different = list(dict.fromkeys(batch.words))
        own = torch.tensor([different.index(words) for words in batch.words], device=self.device)
        images, texts = self.embed(batch.image), self.text_embeddings(different)
        loss = contrastive_loss(images, texts, own, self.scale)
        self.log('loss', loss, prog_bar=True)
        lr = self.config.optim.lr * lr_factor(self.config, self.global_step)
        # Lightning's loggers take `step` for the number of the step, which they would count from 0.
        self.log_dict({'lr': lr, 'step': self.global_step + 1.0})
        return loss

    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings `[B, D]` of length one of images `[B, 3, S, S]`.

        Raises SartmError if they are not finite.
        """
        embeddings = F.normalize(self.tower(images).float(), dim=1)
        if not torch.isfinite(embeddings).all():
            raise SartmError(
                f'the embeddings of the images are not finite at step {self.global_step}; lower '
                'optim.lr, or use precision=32-true or bf16-mixed'
            )
        return embeddings

    def text_embeddings(self, every: Sequence[str]) -> Tensor:
        """Return the embeddings `[P, D]` of length one of the prompts of words."""
        if new := [words for words in every if words not in self.texts]:
            self.texts.update(zip(new, self._encode(new), strict=True))
        return torch.stack([self.texts[words] for words in every]).to(self.device)

    def on_validation_epoch_start(self) -> None:
        """Start without images."""
        self.embeddings: list[Tensor] = []
        self.words: list[str] = []

    def validation_step(self, batch: PromptedImage, index: int) -> None:
        """Embed the images of a batch."""
        self.embeddings.append(self.embed(batch.image))
        self.words += batch.words

    def on_validation_epoch_end(self) -> None:
        """Log in percent how many images are nearest to their own of the prompts of all of them.

        `val_prompt` counts those, `val_modality` also those nearest to another of their modality.
        """
        different = list(dict.fromkeys(self.words))
        nearest = (torch.cat(self.embeddings) @ self.text_embeddings(different).T).argmax(dim=1)
        pairs = [(different[n], own) for n, own in zip(nearest.tolist(), self.words, strict=True)]
        right = np.mean([found == own for found, own in pairs])
        sensor = np.mean([sensor_of(found) == sensor_of(own) for found, own in pairs])
        figures = {'val_prompt': 100 * float(right), 'val_modality': 100 * float(sensor)}
        self.log_dict({**figures, 'step': float(self.global_step)}, sync_dist=True)
        if self.trainer.is_global_zero:
            tqdm.write(
                f'step {self.trainer.global_step}: of the images of data.val '
                f'{figures["val_prompt"]:.1f} % are nearest to their own prompt, '
                f'{figures["val_modality"]:.1f} % to one of their modality'
            )

    def configure_optimizers(self) -> Any:
        """AdamW on the adapters."""
        optim = self.config.optim
        adapters = [weight for weight in self.tower.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(adapters, optim.lr, weight_decay=optim.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(lr_factor, self.config))
        return [optimizer], [{'scheduler': scheduler, 'interval': 'step'}]


def train_ma_clip(config: TrainConfig, trainer: pl.Trainer, out: Path) -> Path:
    """Train the adapters of MA-CLIP and write them.

    Args:
        config: of the run; CLIP's model and weights, prompts, data sets, steps.
        trainer: of the run.
        out: its folder, which receives `ma_clip.safetensors`.

    Returns:
        The path of the file.

    Raises:
        SartmError: CLIP or a data set cannot be used, or the embeddings are not finite.
    """
    settings = config.ma_clip
    check_model(settings.model)
    clip, tokenizer = load_clip(settings.model, settings.pretrained, ALTERNATIVES, config.seed)
    tower = tower_config(clip, settings)
    card: dict[str, Any] = {
        'model': settings.model,
        'pretrained': settings.pretrained,
        'seed': config.seed if settings.pretrained == RANDOM else None,
        'base_sha256': sha256_of(clip.visual.state_dict()),
        'modalities': list(config.model.modalities),
        'tower': asdict(tower),
    }
    if settings.pretrained == RANDOM and trainer.is_global_zero:
        print(
            f'{settings.model} has random weights (seed {config.seed}) and not those of CLIP; use '
            'this to try the program'
        )
    sources = [config.data.val, *config.data.more_val]
    size = clip.visual.image_size
    module = MaClipTraining(
        config,
        clip,
        tokenizer,
        PromptedImages(config, config.data.drawn, tower, size),
        PromptedImages(config, sources, tower, size, in_order=True),
    )
    trainer.fit(module)
    if trainer.global_step % config.val_every:
        trainer.validate(module, verbose=False)
    card |= {
        'prompts': sorted(module.texts),
        'templates': list(settings.templates),
        'steps': trainer.global_step,
        **{key: float(value) for key, value in trainer.callback_metrics.items() if 'val_' in key},
        'config': to_dict(config),
    }
    if trainer.is_global_zero:
        write_adapters(out / ADAPTERS_FILE, adapters_of(module.tower), card)
    return out / ADAPTERS_FILE
