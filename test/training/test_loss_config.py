"""The settings of losses and text teacher: presets, what overrides them, what is refused."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from sartm_model.config import PRESETS, LossConfig, SourceConfig, load_train_config, to_dict
from sartm_model.errors import SartmError


def load(tmp_path, *overrides):
    path = tmp_path / 'train.yaml'
    path.write_text('loss: {ohem_probability: 0.6}')
    return load_train_config(path, overrides)


def test_a_preset_gives_the_weights_that_are_not_set(tmp_path):
    assert LossConfig().weights == PRESETS['balanced']
    assert PRESETS['balanced'].auxiliary == 0.4
    assert load(tmp_path, 'loss.preset=paper').loss.weights == (0.008, 1e4, 100)
    set_one = load(tmp_path, 'loss.preset=paper', 'loss.prototype=0').loss
    assert set_one.weights == (0.008, 0, 100)
    # A run's own record, read again, sets nothing that the run did not.
    path = tmp_path / 'again.yaml'
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(to_dict(load(tmp_path)))))
    assert load_train_config(path, ['loss.preset=paper']).loss.weights == PRESETS['paper']


def test_words_and_templates_come_from_file_and_command_line(tmp_path):
    text = load(tmp_path, 'text.names.curve=kerb', "text.templates=['a {name}','one {name}']").text
    assert text.names == {'curve': 'kerb'}
    assert text.templates == ['a {name}', 'one {name}']


def test_an_override_without_a_value_is_the_empty_text(tmp_path):
    """A shell passes key='' on as key=."""
    given = ('imagenet_weights=hub', 'data.train=[{dataset: mfnet, root: here}]')
    config = load(tmp_path, *given, 'imagenet_weights=', 'data.train.0.root=')
    assert (config.imagenet_weights, config.data.train[0].root) == ('', '')
    assert load(tmp_path, 'loss.auxiliary=1', 'loss.auxiliary=null').loss.auxiliary is None
    for number in ('optim.lr', 'loss.auxiliary'):
        with pytest.raises(SartmError, match=rf"{number}: Value '' of type 'str' could not"):
            load(tmp_path, f'{number}=')


def test_an_override_changes_one_item_of_a_list(tmp_path):
    sources = load(
        tmp_path,
        'data.train=[{dataset: synthetic}, {dataset: mfnet, root: here, weight: 2}]',
        'data.train.1.root=there',
    ).data.train
    assert [(source.dataset, source.root, source.weight) for source in sources] == [
        ('synthetic', '', 1.0),
        ('mfnet', 'there', 2.0),
    ]


def test_an_override_that_names_a_data_set_replaces_the_source_of_the_file(tmp_path):
    path = tmp_path / 'train.yaml'
    path.write_text(
        'loss: {language: 0, ohem_probability: 0.6}\n'
        'data: {val: {dataset: nyuv2, root: a, frames: 5, modalities: [rgb]}}\n'
    )
    config = load_train_config(path, ['data.val={dataset: mfnet, root: b}', 'loss={prototype: 0}'])
    assert config.data.val == SourceConfig('mfnet', 'b', 'val')
    loss = config.loss
    assert (loss.language, loss.prototype, loss.ohem_probability) == (0, 0, 0.6)
    changed = load_train_config(path, ['data.val={frames: 7}']).data.val
    assert changed == SourceConfig('nyuv2', 'a', 'val', frames=7, modalities=['rgb'])


def test_every_source_is_used_whole_unless_its_frames_are_set(tmp_path):
    mfnet = '{dataset: mfnet, root: here}'
    data = load(tmp_path, f'data.train=[{mfnet}]', f'data.val={mfnet}').data
    assert [(source.split, source.frames) for source in (*data.train, data.val)] == [
        ('train', 0),
        ('val', 0),
    ]
    assert load(tmp_path, f'data.val={mfnet}', 'data.val.frames=5').data.val.frames == 5


@pytest.mark.parametrize(
    ('override', 'fault'),
    [
        ('loss.preset=fair', 'expected one of paper, balanced'),
        ('loss.language=-1', 'loss.language is -1.0'),
        ('loss.language=much', r'loss\.language: .*much'),
        ('loss.prototype=nan', 'loss.prototype is nan'),
        ('loss.auxiliary=inf', 'loss.auxiliary is inf'),
        ('loss.ohem_probability=0', r'loss\.ohem_probability is 0\.0; expected above 0'),
        ('loss.ohem_min_fraction=2', r'loss\.ohem_min_fraction is 2\.0; expected 0 to 1'),
        ('loss.class_weights=[1,-1]', r'a weight in loss\.class_weights is -1\.0'),
        ('loss.class_weights=[0,0]', r'loss\.class_weights are all 0'),
        ('loss.class_balance=-1', r'loss\.class_balance is -1\.0; expected 0 to 1'),
        ('loss={class_weights: [1,2], class_balance: 1}', r'are both set; expected one of them'),
        ('data.train.0.weight=nan', 'the setting weight of the source synthetic is nan'),
        ('data.train.0.frames=-1', 'the setting frames of the source synthetic is -1'),
        ('data.train.0.weight=0', r'all sources of data\.train have weight 0'),
        ('data.workers=-1', r'data\.workers is -1; expected 0 or more'),
        ('data.thermal_noise=nan', r'data\.thermal_noise is nan'),
        ('data.scale_max=inf', r'data\.scale_max are 0\.5 and inf'),
        ('optim.lr=-1', r'optim\.lr is -1\.0'),
        ('optim.lr=0', r'optim\.lr is 0\.0; expected more than 0'),
        ('optim.lr=nan', r'optim\.lr is nan'),
        ('optim.clip_norm=-1', r'optim\.clip_norm is -1\.0; expected 0 or more'),
        ('optim.weight_decay=-1', r'optim\.weight_decay is -1\.0'),
        ('optim.warmup_fraction=5', r'optim\.warmup_fraction is 5\.0; expected 0 to 1'),
        ('ema_decay=2', r'ema_decay is 2\.0; expected 0 to 1'),
        ('patience=-1', 'patience is -1'),
        ('seed=-1', 'seed is -1; expected 0 to 4294967295'),
        ('device=gpu', "device is 'gpu'; expected one of auto, cpu, cuda"),
        ('text.templates=[]', 'text.templates'),
        ('text.templates=[a car]', r'one or more with \{name\}'),
        ('text.names=[car]', 'Cannot merge'),
        ('data.train.root=there', 'named by its number'),
        ('data.train.5.root=there', r'data.train\[5\]'),
        ('data.train.0.rot=there', 'rot'),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, override, fault):
    with pytest.raises(SartmError, match=fault):
        load(tmp_path, 'data.train=[{dataset: synthetic}]', override)
