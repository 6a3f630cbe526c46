"""Size lite against figures of an independent implementation, with its weights.

The weights lie in the folder `weights` beside that of the real frames; the tests skip without it.
Its other names are translated here.
"""

from __future__ import annotations

import re

import pytest
from safetensors.torch import load_file

from sartm_model.config import ModelConfig
from sartm_model.data.registry import open_dataset
from sartm_model.evaluation.corruptions import CorruptedDataset
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry

NAMES = {
    'absent.': 'missing_modality_embedding.',
    'auxiliary_head.classify.': 'auxiliary_head.classifier.',
    'auxiliary_head.widen_': 'auxiliary_head.lateral_',
    'encoder.fine.': 'encoder.laterals.0.',
    'encoder.middle.': 'encoder.laterals.1.',
    'encoder.coarse.': 'encoder.laterals.2.',
    'encoder.coarsest.': 'encoder.laterals.3.',
    'fusion.enter_': 'fusion.proj_in_',
    'fusion.leave_': 'fusion.proj_out_',
}
LAYERS = {  # of timm's blocks: the first one has no expansion
    'depthwise_separable': {
        'conv_dw': 'depthwise', 'bn1': 'depthwise', 'conv_pw': 'project', 'bn2': 'project'
    },
    'inverted_residual': {
        'conv_pw': 'expand', 'bn1': 'expand', 'conv_dw': 'depthwise', 'bn2': 'depthwise',
        'conv_pwl': 'project', 'bn3': 'project',
    },
}  # fmt: skip
STEM = {'conv_stem': 'stem', 'bn1': 'stem'}


def translate(name: str) -> str:
    """Return the name that a weight of the other implementation has in ours."""
    found = re.fullmatch(
        r'encoder\.trunks\.(rgb|thermal)\.(?:blocks\.(\d)\.(\d)\.)?(\w+)(.+)', name
    )
    if not found:
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        return name
    modality, stage, block, layer, rest = found.groups()
    if stage is None:
        place = STEM[layer]
    else:
        kind = 'depthwise_separable' if stage == '0' else 'inverted_residual'
        place = f'stages.{stage}.{block}.{LAYERS[kind][layer]}'
    if layer.startswith('bn'):
        return f'encoder.trunk.{place}.norms.{modality}{rest}'
    for theirs, ours in (('.conv.', '.base_layer.'), ('.a.', f'.lora_A.{modality}.')):
        rest = rest.replace(theirs, ours)
    return f'encoder.trunk.{place}.conv{rest.replace(".b.", f".lora_B.{modality}.")}'


@pytest.fixture(scope='module')
def predictor(tmp_path_factory, real_data):
    path = real_data.parent / 'weights' / 'lite_selftrained.safetensors'
    if not path.is_file():
        pytest.skip(f'no weights {path}')
    model = registry.build(ModelConfig(size='lite', lora_rank=8), len(MFNET))
    state = {translate(name): tensor.float() for name, tensor in load_file(path).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith('num_batches_tracked') for name in missing)
    file = tmp_path_factory.mktemp('reference') / 'lite.safetensors'
    checkpoints.save(file, model, MFNET, {})
    return Predictor(file, device='cpu')


@pytest.mark.slow
@pytest.mark.parametrize(('modality', 'miou'), [('both', 38.9), ('rgb', 37.1), ('thermal', 27.8)])
def test_the_reference_and_ours_agree_on_real_frames(predictor, real_data, modality, miou):
    def predict(frame):
        return FramePrediction(predictor.predict(frame.images).labels)

    frames = CorruptedDataset(open_dataset('mfnet', real_data / 'mfnet', 'val'), modality=modality)
    # The figures are rounded to 0.1. What rounding of float32 does to labels on the borders between
    # classes is far less than another 0.05.
    assert evaluate(predict, frames)['miou'] == pytest.approx(miou, abs=0.1)
