"""MA-CLIP in the training of a network: its embeddings of the frames, computed once.

MA-CLIP is frozen then, so a step of the training needs no image tower. The embeddings are those of
the whole images of each frame, without augmentation (ours): a crop is of the same sensor and scene.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from sartm_model.config import TrainConfig
from sartm_model.data.sampling import TrainingSamples
from sartm_model.data.sources import modalities_of
from sartm_model.data.transforms import network_inputs
from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel
from sartm_model.models.registry import model_class
from sartm_model.models.segrgbx.ma_clip import MaClip, split_attentions
from sartm_model.models.segrgbx.ma_clip_adapters import merge, read_adapters
from sartm_model.models.state_dict import sha256_of
from sartm_model.training.clip import load_clip, tower_config
from sartm_model.training.tensor_cache import read_cache
from sartm_model.utils.files import write_file
from sartm_model.utils.overrides import differences

CACHE_FILE = 'ma_clip_embeddings.safetensors'

ALTERNATIVES = (
    'give weights that are already here as ma_clip.pretrained, or random to try the program'
)
"""What to do if CLIP cannot be loaded."""


def open_ma_clip(config: TrainConfig) -> MaClip | None:
    """Return MA-CLIP with the weights of `ma_clip.adapters` and of the CLIP that they are for.

    None if there is no such setting, or `model.without` leaves MA-CLIP out.

    Raises:
        SartmError: a file or CLIP cannot be used, the adapters are for another CLIP, or for one
            with another activation or normalisation, or they were not trained on a modality of the
            network.
    """
    if not config.ma_clip.adapters or 'ma_clip' in config.model.without:
        return None
    if 'ma_clip' not in model_class(config.model.name).PARTS:
        raise SartmError(f'ma_clip.adapters is set, but {config.model.name} has no MA-CLIP')
    settings, path = config.ma_clip, Path(config.ma_clip.adapters)
    adapters, card = read_adapters(path)
    if unknown := [name for name in config.model.modalities if name not in card['modalities']]:
        raise SartmError(
            f'{path} was trained on {", ".join(card["modalities"])} and not on '
            f'{", ".join(unknown)}, which model.modalities has; train adapters on them, too'
        )
    clip, _ = load_clip(settings.model, settings.pretrained, ALTERNATIVES, card['seed'] or 0)
    config_of_tower = tower_config(clip, settings)
    # The same weights may be loaded into a tower with another activation or normalisation.
    differ = differences(
        {**card['tower'], 'context': settings.context},
        json.loads(json.dumps(asdict(config_of_tower))),
    )
    if sha256_of(clip.visual.state_dict()) != card['base_sha256'] or differ:
        reason = f': {", ".join(differ.values())}' if differ else ''
        raise SartmError(
            f'{path} has adapters for {card["model"]} with weights {card["pretrained"]}, and not '
            f'for {settings.model} with {settings.pretrained}, which ma_clip.model and '
            f'ma_clip.pretrained name{reason}'
        )
    split_attentions(clip.visual)
    merge(clip.visual, adapters)
    ma_clip = MaClip(config_of_tower)
    ma_clip.tower.load_state_dict(clip.visual.state_dict())
    return ma_clip.eval()


def use_embeddings(
    ma_clip: MaClip | None, model: SegmentationModel, samples: TrainingSamples, out: Path
) -> None:
    """Give a network MA-CLIP and the means of its embeddings, and the samples their embeddings.

    Does nothing for a network without MA-CLIP.

    The embeddings are kept as `ma_clip_embeddings.safetensors` in the folder of the run, so that a
    resumed run has the same.

    Args:
        ma_clip: with its weights; None to take that of the network, which started from a
            checkpoint.
        model: `segrgbx` with MA-CLIP, before its training.
        samples: of the training.
        out: folder of the run.
    """
    if model.config.ma_clip is None or 'ma_clip' in model.config.without:
        return
    network: Any = model
    ma_clip = ma_clip or network.ma_clip
    assert ma_clip is not None  # `initial_model` refuses a checkpoint with the means alone
    if network.ma_clip is not None:
        network.ma_clip.load_state_dict(ma_clip.state_dict())
    request = json.dumps(
        {
            'weights_sha256': sha256_of(ma_clip.state_dict()),
            'sources': [str(source) for source in samples.sources],
            'frames': [dataset.names for dataset in samples.datasets],
            'modalities': list(samples.modalities),
            'input_scale': model.config.input_scale,
        }
    )
    stored = read_cache(out / CACHE_FILE, request)
    if stored is None:
        stored = _embed(ma_clip, model, samples)
        write_file(out / CACHE_FILE, save(stored, {'request': request}))
    samples.embeddings = [{} for _ in samples.datasets]
    for key, of_frames in stored.items():
        number, _, name = key.partition('.')
        samples.embeddings[int(number)][name] = of_frames
    for index, name in enumerate(model.config.modalities):
        every = [of_source[name] for of_source in samples.embeddings if name in of_source]
        if every:
            network.mean_embeddings[index] = F.normalize(torch.cat(every).mean(dim=0), dim=0)


@torch.no_grad()
def _embed(
    ma_clip: MaClip, model: SegmentationModel, samples: TrainingSamples
) -> dict[str, Tensor]:
    """Return the embeddings of all frames, `NUMBER_OF_THE_SOURCE.MODALITY` -> `[N, D]`."""
    found: dict[str, Tensor] = {}
    for number, dataset in enumerate(samples.datasets):
        names = modalities_of(samples.sources[number], samples.modalities)
        rows: dict[str, list[Tensor]] = {name: [] for name in names}
        for frame in tqdm(dataset, total=len(dataset), desc='MA-CLIP', unit='frame', disable=None):
            images = {
                name: torch.from_numpy(np.ascontiguousarray(image))
                for name, image in frame.select(names).items()
            }
            # As `encode` is given them, so that what is computed at inference is the same.
            resized = {k: model.resize_input(x) for k, x in network_inputs(images).items()}
            for name, row in ma_clip(model.pad(resized)).items():
                rows[name].append(row[0])
        found |= {f'{number}.{name}': torch.stack(of_frames) for name, of_frames in rows.items()}
    return found
