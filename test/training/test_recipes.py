"""Every configuration loads, and the recipes have the settings of the paper."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from sartm_model.config import load_train_config
from sartm_model.data.sources import label_space_of_run
from sartm_model.models.registry import build
from sartm_model.models.sam2_download import SAM2_FILES

FOLDER = Path(__file__).resolve().parents[2] / 'config' / 'train'
FRAMES = {'mfnet': 784, 'pst900': 597, 'fmb': 1220}  # of the official training splits
SIZES = {'mfnet': (480, 640), 'pst900': (720, 1280), 'fmb': (600, 800)}


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.yaml')), ids=lambda path: path.stem)
def test_every_configuration_loads(path):
    config = load_train_config(path)
    # A key of the file that is not read would leave the default in its place.
    given = yaml.safe_load(path.read_text())
    if (beside := path.parent / given.get('label_space', '')).is_file():
        given['label_space'] = str(beside.resolve())
    assert {key: getattr(config, key) for key in given if not isinstance(given[key], dict)} == {
        key: value for key, value in given.items() if not isinstance(value, dict)
    }


@pytest.mark.parametrize('name', FRAMES)
def test_recipes_of_the_paper(name):
    config = load_train_config(FOLDER / f'{name}.yaml')
    data, optim = config.data, config.optim
    assert config.label_space == name
    assert [source.dataset for source in data.train] == [name]
    assert [source.split for source in data.train] == ['train']
    assert data.val.split != 'test'
    assert config.steps == math.ceil(500 * FRAMES[name] / data.batch_size)
    assert data.batch_size == 8
    assert optim.warmup_fraction * 500 == pytest.approx(10)
    assert (optim.lr, optim.weight_decay, optim.power) == (1e-4, 0.01, 0.9)
    assert (data.scale_min, data.scale_max, data.colour_jitter) == (0.5, 2.0, 0.2)
    assert (data.crop_height, data.crop_width) == SIZES[name]
    assert Path(config.sam2_weights).name == SAM2_FILES['sam2.1', config.model.size].name
    weights = f'sam2_weights=weights/{SAM2_FILES["sam2.1", "large"].name}'
    other = load_train_config(FOLDER / f'{name}.yaml', ['model.size=large', weights])
    assert other.model.size == 'large'


def test_the_recipes_of_satir_are_two_stages_of_one_network():
    pretrain = load_train_config(FOLDER / 'satir_pretrain.yaml')
    tuned_on_soda = FOLDER / 'satir_soda.yaml'
    assert pretrain.stage == 'pretrain'
    assert pretrain.model.modalities == ('thermal',)
    assert not any(source.dataset == 'soda' for source in pretrain.data.train)
    tuned = load_train_config(tuned_on_soda, model_of=lambda checkpoint: pretrain.model)
    assert tuned.start_from == 'runs/satir_pretrain/last.safetensors'
    assert tuned.model == pretrain.model
    assert {tuned.data.train[0].split, tuned.data.val.split} == {'train', 'val'}
    # The two other rows of the paper's table, as the comment says.
    size = ['model.name=segformer', 'model.size=b2', 'model.modalities=[thermal]']
    for weights in ([], ['imagenet_weights=hub']):
        other = load_train_config(tuned_on_soda, ["start_from=''", *weights, *size])
        assert (other.model, other.start_from) == (pretrain.model, '')
        assert other.data == tuned.data


def test_the_joint_recipe_has_a_batch_for_each_sensor_and_classes_for_each_data_set():
    pytest.importorskip('transformers', reason='needs transformers')
    config = load_train_config(FOLDER / 'segrgbx.yaml', ['model.size=b0'])
    sources = config.data.train
    assert {tuple(source.modalities) for source in sources} == {
        ('rgb', name) for name in config.model.modalities[1:]
    }
    measured = [config.data.val, *config.data.more_val]
    assert [source.dataset for source in measured] == [source.dataset for source in sources]
    assert not any(source.split == 'test' for source in measured)
    label_space = label_space_of_run(config)
    # A data set under two protocols has one label space.
    assert {view.space.name for view in label_space.views} == {
        'mfnet', 'nyuv2', 'deliver', 'zju_rgb_p', 'urbanlf'
    }  # fmt: skip
    network = build(config.model, len(label_space))
    assert network.decode_head.classifier.out_channels == len(label_space)


@pytest.mark.parametrize('name', ['segrgbx', 'ma_clip'])
def test_a_recipe_finds_its_label_space_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(label_space_of_run(load_train_config(FOLDER / f'{name}.yaml')).views) == 5


def test_ma_clip_is_trained_on_the_sensors_and_data_sets_of_the_joint_recipe():
    joint, ma_clip = (load_train_config(FOLDER / f'{name}.yaml') for name in ('segrgbx', 'ma_clip'))
    assert (ma_clip.stage, joint.stage) == ('ma_clip', 'train')
    assert ma_clip.model.modalities == joint.model.modalities
    assert ma_clip.data.train == joint.data.train
    assert ma_clip.data.val == joint.data.val
    assert ma_clip.data.more_val == joint.data.more_val
    for key in ('model', 'pretrained', 'templates', 'words'):
        assert getattr(ma_clip.ma_clip, key) == getattr(joint.ma_clip, key)
    switched_on = load_train_config(FOLDER / 'segrgbx.yaml', ['ma_clip.adapters=a.safetensors'])
    assert switched_on.ma_clip.adapters == 'a.safetensors'
