"""The network that a training run starts from: random, published or earlier trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from sartm_model.config import PRETRAINED, ModelConfig, TrainConfig, to_dict
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry
from sartm_model.models.base import SegmentationModel
from sartm_model.models.class_transfer import replace_heads, transfer_classes
from sartm_model.training.processes import announce
from sartm_model.utils.overrides import differences
from sartm_model.utils.text import format_names


def model_config_of(checkpoint: str) -> ModelConfig:
    """Return the configuration of the network in a checkpoint."""
    return checkpoints.load(checkpoint).config


def initial_model(config: TrainConfig, label_space: LabelSpace) -> SegmentationModel:
    """Return the network of a run with the weights that one of `config.STARTS` names.

    Prints which weights are kept and which start anew.

    Raises:
        SartmError: the weights cannot be read, or do not fit the network of the run.
    """
    if config.start_from:
        earlier = checkpoints.load(config.start_from)
        # These two settings change what is made of the weights, not which weights there are.
        free = {key: getattr(config.model, key) for key in ('prediction', 'input_scale')}
        earlier = replace(earlier, config=replace(earlier.config, **free))
        if len(earlier.config.modalities) == len(config.model.modalities):
            earlier = _for_modalities(earlier, config.model.modalities)
        if replace(earlier.config, ma_clip=config.model.ma_clip) == config.model:
            _check_ma_clip(earlier, config)
        if earlier.config != config.model:
            differ = differences(to_dict(earlier.config), to_dict(config.model))
            raise SartmError(
                f'checkpoint {earlier.path} is of another network than that of the run: '
                f'{"; ".join(differ.values())}; leave model out to take it from the checkpoint'
            )
        model = checkpoints.build(earlier, merged=False).train()
        if _stage(earlier) == 'pretrain' and config.stage != 'pretrain':
            return _with_new_heads(model, earlier, label_space)
        if earlier.label_space.classes == label_space.classes:
            return model
        return _with_classes(model, earlier, label_space)
    model = registry.build(config.model, len(label_space))
    for setting in PRETRAINED:
        if source := getattr(config, setting):
            model.load_pretrained(setting, source)
    return model


def _check_ma_clip(checkpoint: checkpoints.Checkpoint, config: TrainConfig) -> None:
    """Compare MA-CLIP in a checkpoint with that of a run, whose networks are the same otherwise.

    Raises:
        SartmError: the run cannot have it so; the error says what it can have.
    """
    if 'ma_clip' in config.model.without:
        return
    own, settings, path = checkpoint.config.ma_clip, config.ma_clip, checkpoint.path
    if own is None:
        if settings.adapters:
            raise SartmError(
                f'checkpoint {path} is of a network without MA-CLIP; leave ma_clip.adapters out'
            )
    elif own.context == 'mean' and not (settings.adapters and settings.context == 'mean'):
        raise SartmError(
            f'checkpoint {path} has the mean embeddings of MA-CLIP and not its image tower; give '
            'its adapters as ma_clip.adapters, with ma_clip.context=mean'
        )
    elif own.context == 'image' and settings.context == 'mean':
        raise SartmError(
            f'checkpoint {path} has the image tower of MA-CLIP; leave ma_clip.context=mean out, '
            'and take the tower out of the result by sartm adapters'
        )
    elif own != config.model.ma_clip:
        present = config.model.ma_clip
        differ = differences(asdict(own), asdict(present) if present else {})
        raise SartmError(
            f'checkpoint {path} has another MA-CLIP than the run: {"; ".join(differ.values())}; '
            'leave model.ma_clip out, and give no other adapters than its own'
        )


def _for_modalities(
    checkpoint: checkpoints.Checkpoint, modalities: Sequence[str]
) -> checkpoints.Checkpoint:
    """Return a checkpoint in which the weights of each modality are those of another one.

    The names of modalities are parts of the names of weights, see `ModelConfig`.
    """
    others = dict(zip(checkpoint.config.modalities, modalities, strict=True))
    changed = {old: new for old, new in others.items() if old != new}
    for old, new in changed.items():
        announce(f'{checkpoint.path}: {new} starts from the weights of {old}')
    state = {
        '.'.join(changed.get(part, part) for part in name.split('.')): value
        for name, value in checkpoint.state.items()
    }
    return replace(
        checkpoint, state=state, config=replace(checkpoint.config, modalities=tuple(modalities))
    )


def _stage(checkpoint: checkpoints.Checkpoint) -> str:
    """Return the stage of the run that wrote a checkpoint; runs before there were stages train."""
    return checkpoint.card.get('config', {}).get('stage', 'train')


def _with_new_heads(
    model: SegmentationModel, checkpoint: checkpoints.Checkpoint, label_space: LabelSpace
) -> SegmentationModel:
    """Return a model with the classes of a run, new heads, and all else of a pretrained model."""
    changed = registry.build(model.config, len(label_space))
    anew = replace_heads(changed, model.state_dict())
    announce(
        f'{checkpoint.path} is pretrained on {checkpoint.label_space.name}; these weights start '
        'anew, and all others are kept:'
    )
    for head, names in anew.items():
        announce(f'  {len(names)} of {head}: {format_names(names)}')
    return changed


def _with_classes(
    model: SegmentationModel, checkpoint: checkpoints.Checkpoint, label_space: LabelSpace
) -> SegmentationModel:
    """Return a model with the classes of a run and the weights of the model of a checkpoint."""
    changed = registry.build(model.config, len(label_space))
    classes = checkpoint.label_space.classes
    transfer = transfer_classes(changed, label_space.classes, model.state_dict(), classes)
    announce(
        f'{checkpoint.path} has the classes of {checkpoint.label_space.name}; all weights are kept '
        'but those of classes'
    )
    for names, fate in (
        (transfer.kept, 'of the same name keep their weights'),
        (transfer.new, 'start anew'),
        (transfer.dropped, 'are dropped'),
    ):
        if names:
            announce(f'  {len(names)} {fate}: {", ".join(names)}')
    return changed
