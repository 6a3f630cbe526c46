"""Runs with the classes of a user, and runs that start from a checkpoint with other classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from small_training import splits, write_folder
from untrained_checkpoint import save_untrained

from sartm_model.config import (
    DataConfig,
    ModelConfig,
    SourceConfig,
    TrainConfig,
    load_train_config,
    with_absolute_paths,
)
from sartm_model.data.sources import label_space_of_run
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET, LabelSpace, View
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.class_transfer import transfer_classes
from sartm_model.models.sartm import Sartm
from sartm_model.training.run import train
from sartm_model.utils.text import compare_classes

NAMES = MFNET.classes


def untrained(num_classes: int, seed: int) -> Sartm:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Sartm(ModelConfig(), num_classes).eval()


def test_classes_in_another_order_give_the_same_logits_in_that_order():
    earlier, model = untrained(3, 0), untrained(3, 1)
    transfer = transfer_classes(model, ('c', 'a', 'b'), earlier.state_dict(), ('a', 'b', 'c'))
    assert transfer == (['c', 'a', 'b'], [], [])
    images = {'rgb': torch.randn(1, 3, 64, 64), 'thermal': torch.randn(1, 1, 64, 64)}
    with torch.no_grad():
        expected, found = earlier(images), model(images)
    for head in ('mask', 'auxiliary'):
        wanted = expected.logits[head][:, [2, 0, 1]]
        torch.testing.assert_close(found.logits[head], wanted, atol=1e-4, rtol=1e-4)


def test_new_classes_start_anew_and_everything_else_is_kept():
    earlier, model, fresh = untrained(3, 0), untrained(4, 1), untrained(4, 1)
    transfer = transfer_classes(model, ('b', 'x', 'y', 'a'), earlier.state_dict(), ('a', 'b', 'c'))
    assert transfer == (['b', 'a'], ['x', 'y'], ['c'])
    images = {'rgb': torch.randn(1, 3, 64, 64), 'thermal': torch.randn(1, 1, 64, 64)}
    with torch.no_grad():
        logits = earlier(images).logits['auxiliary']
        found = model(images)
    torch.testing.assert_close(found.semantic_map, earlier(images).semantic_map)
    torch.testing.assert_close(found.logits['auxiliary'][:, [0, 3]], logits[:, [1, 0]])
    tokens, mlps = model.mask_decoder.masks.mask_tokens, model.mask_decoder.masks
    for id_, source, source_id in ((0, earlier, 1), (3, earlier, 0), (1, fresh, 1), (2, fresh, 2)):
        masks = source.mask_decoder.masks
        torch.testing.assert_close(tokens.weight[id_], masks.mask_tokens.weight[source_id])
        for one, other in zip(
            mlps.output_hypernetworks_mlps[id_].parameters(),
            masks.output_hypernetworks_mlps[source_id].parameters(),
            strict=True,
        ):
            torch.testing.assert_close(one, other)


def test_weights_of_another_network_are_refused():
    earlier = untrained(2, 0).state_dict()
    del earlier['missing_modality_embedding.0']
    with pytest.raises(SartmError, match='lacks missing_modality_embedding'):
        transfer_classes(untrained(3, 1), ('a', 'b', 'c'), earlier, ('a', 'b'))


def test_a_run_from_a_checkpoint_of_other_classes_says_which_are_kept(
    tmp_path, write_config, capsys
):
    space = LabelSpace('yard', ('fence', 'person', 'unlabeled'), ((0, 0, 0),) * 3)
    earlier = save_untrained(tmp_path / 'yard.safetensors', space)
    settings = ['steps=1', 'ema_decay=0', 'optim.lr=1e-9', f'start_from={earlier}']
    last = train(write_config(), tmp_path / 'run', settings)
    printed = capsys.readouterr().out
    assert 'yard.safetensors has the classes of yard; all weights are kept but' in printed
    assert '  2 of the same name keep their weights: unlabeled, person\n' in printed
    assert '  7 start anew: car, bike, curve, car_stop, guardrail, color_cone, bump\n' in printed
    assert '  1 are dropped: fence\n' in printed
    found, before = checkpoints.load(last), checkpoints.load(earlier)
    assert found.label_space == MFNET
    key = 'auxiliary_head.classifier.bias'
    torch.testing.assert_close(
        found.state[key][[0, 2]], before.state[key][[2, 1]], atol=1e-6, rtol=0
    )


def test_classes_from_a_yaml_file_and_paths_beside_the_configuration(
    tmp_path, write_config, monkeypatch
):
    """The classes have MFNet's names, because the frames are MFNet's, in a file of their own."""
    folder = tmp_path / 'settings'
    folder.mkdir()
    (folder / 'own.yaml').write_text(yaml.safe_dump({'background_id': 3, 'names': list(NAMES)}))
    path = write_config(label_space='own.yaml', steps=1, val_every=1)
    path = path.rename(folder / 'train.yaml')
    monkeypatch.chdir(tmp_path)
    last = train(path, tmp_path / 'run')
    space = checkpoints.load(last).label_space
    assert (space.name, space.classes, space.background_id) == ('own', NAMES, 3)
    # The run's own copy of the settings has a path that does not depend on where it lies.
    assert load_train_config(tmp_path / 'run' / 'config.yaml').label_space == str(
        folder / 'own.yaml'
    )


def test_paths_that_are_not_beside_the_configuration_stay_as_they_are(tmp_path):
    (tmp_path / 'train.yaml').write_text(
        'label_space: mfnet\nsam2_weights: weights/sam2.pt\n'
        'data: {train: [{dataset: folder, root: data.yaml}], val: {root: gone}}\n'
    )
    (tmp_path / 'data.yaml').touch()
    config = load_train_config(tmp_path / 'train.yaml', ['text.embeddings=data.yaml'])
    assert config.label_space == 'mfnet'
    assert config.sam2_weights == 'weights/sam2.pt'
    assert config.data.train[0].root == str(tmp_path / 'data.yaml')
    assert config.data.val.root == 'gone'
    assert config.text.embeddings == 'data.yaml'  # overrides start from the working directory


def test_a_path_in_the_working_directory_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / 'events').mkdir()
    (tmp_path / 'data.yaml').touch()
    monkeypatch.chdir(tmp_path)
    sources = [SourceConfig('folder', name) for name in ('data.yaml', 'events', 'gone')]
    config = TrainConfig(data=DataConfig(train=sources), label_space='events')
    found = with_absolute_paths(config)
    roots = [source['root'] for source in found['data']['train']]
    assert roots == [str(tmp_path / 'data.yaml'), str(tmp_path / 'events'), 'gone']
    assert found['label_space'] == 'events'  # a folder of that name is none of a label space


def test_an_absolute_path_stays_as_it_is(tmp_path):
    """A run could not be resumed where its own copy of the settings named the target of a link."""
    (tmp_path / 'frames').mkdir()
    link = tmp_path / 'link'
    link.symlink_to(tmp_path / 'frames')
    (tmp_path / 'train.yaml').write_text(f'data: {{train: [{{dataset: mfnet, root: {link}}}]}}\n')
    assert load_train_config(tmp_path / 'train.yaml').data.train[0].root == str(link)


def test_a_folder_beside_the_configuration_is_not_taken_for_a_name(tmp_path):
    for name in ('mfnet', 'demo', 'frames'):
        (tmp_path / name).mkdir()
    (tmp_path / 'train.yaml').write_text(
        'label_space: mfnet\nstart_from: demo\n'
        'data: {train: [{dataset: mfnet, root: frames}, {dataset: mfnet, root: mfnet}]}\n'
    )
    config = load_train_config(tmp_path / 'train.yaml')
    assert (config.label_space, config.start_from) == ('mfnet', 'demo')
    roots = [source.root for source in config.data.train]
    assert roots == [str(tmp_path / 'frames'), str(tmp_path / 'mfnet')]


def test_the_home_folder_is_expanded_in_every_path_of_a_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', '/home/somebody')
    (tmp_path / 'train.yaml').write_text(
        'label_space: ~/classes.yaml\nsam2_weights: ~/sam2.pt\n'
        'data: {train: [{dataset: mfnet, root: ~/MFNet}]}\n'
        'text: {pretrained: ~/clip.pt}\nma_clip: {adapters: ~/ma_clip.safetensors}\n'
    )
    overrides = ["sam2_weights=''", 'start_from=~/best.safetensors', 'text.embeddings=~/clip.npz']
    config = load_train_config(tmp_path / 'train.yaml', overrides)
    paths = [config.label_space, config.start_from, config.data.train[0].root]
    paths += [config.text.pretrained, config.text.embeddings, config.ma_clip.adapters]
    names = ['classes.yaml', 'best.safetensors', 'MFNet', 'clip.pt', 'clip.npz']
    assert paths == [f'/home/somebody/{name}' for name in (*names, 'ma_clip.safetensors')]
    assert config.sam2_weights == ''
    weights = load_train_config(tmp_path / 'train.yaml').sam2_weights
    assert weights == '/home/somebody/sam2.pt'


def test_without_a_label_space_a_run_has_the_classes_of_its_first_source():
    assert label_space_of_run(TrainConfig()) is MFNET  # of the generated scenes


def test_training_needs_both_modalities_or_is_told_of_one(tmp_path, write_config):
    frames = [{'rgb': np.zeros((32, 32, 3), np.uint8), 'labels': np.eye(32, dtype=np.uint8)}] * 2
    declared = write_folder(tmp_path / 'frames', frames, 1, ['a', 'b'])
    data = yaml.safe_load(write_config().read_text())['data']
    path = write_config(data=data | splits(declared), loss={'language': 0}, steps=1)
    with pytest.raises(SartmError, match='has no thermal images; training needs RGB and') as error:
        train(path, tmp_path / 'run')
    advice = str(error.value).partition('; set ')[2].split()[0]
    assert advice == 'data.modality=rgb'
    train(path, tmp_path / 'run', [advice])


@pytest.mark.parametrize(
    ('classes', 'expected'),
    [
        (['a', 'c'], 'only the former has b, only the latter has c'),
        (['a', 'b', 'c'], 'only the latter has c'),
        (['b', 'a'], 'they are in another order'),
    ],
)
def test_classes_of_one_name_that_differ_are_named(tmp_path, write_config, classes, expected):
    frames = [
        {
            'rgb': np.zeros((32, 32, 3), np.uint8),
            'thermal': np.zeros((32, 32), np.uint8),
            'labels': np.eye(32, dtype=np.uint8),
        }
    ] * 2
    first, second = (
        splits(write_folder(tmp_path / folder, frames, 1, {'name': 'own', 'names': names}))
        for folder, names in (('one', ['a', 'b']), ('two', classes))
    )
    data = yaml.safe_load(write_config().read_text())['data']
    sources = {'train': first['train'] + second['train'], 'val': first['val']}
    path = write_config(data=data | sources, loss={'language': 0})
    with pytest.raises(SartmError, match=rf'two/data\.yaml train has .* own: {expected}$'):
        train(path, tmp_path / 'run')


def test_the_classes_of_a_view_are_compared_with_those_of_its_name():
    own, other = (LabelSpace('own', names, ((0, 0, 0),) * 2) for names in (('a', 'b'), ('a', 'c')))
    names = ('a', 'b', 'x', 'y')
    unified = LabelSpace('all', names, ((0, 0, 0),) * 4, views=(View(own, (0, 1)),))
    assert compare_classes(unified, other) == 'only the former has b, only the latter has c'
