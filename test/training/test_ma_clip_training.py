"""MA-CLIP: its loss and prompts, its training, and the training of a network with it."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from mfnet_frames import write_frames
from processes import ROOT, TIMEOUT_S, child_environment
from safetensors.torch import load_file, save_file
from small_clip import register

from sartm_model.cli.main import main
from sartm_model.config import SourceConfig, load_train_config
from sartm_model.data.registry import open_dataset
from sartm_model.data.sampling import TrainingSamples
from sartm_model.data.sources import FirstFrames
from sartm_model.data.synthetic import render
from sartm_model.data.transforms import network_inputs
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.segrgbx.ma_clip import MaClip, split_attentions
from sartm_model.models.segrgbx.ma_clip_adapters import merge, read_adapters
from sartm_model.training.clip import load_clip
from sartm_model.training.ma_clip.embeddings import use_embeddings
from sartm_model.training.ma_clip.loss import contrastive_loss
from sartm_model.training.ma_clip.prompts import prompt_words
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train

# The loss ----------------------------------------------------------------------------------------


def loss_in_loops(images, texts, own, scale):
    """The formula, with the positives of an image and of a prompt counted one by one."""
    similarity = [
        [scale * sum(a * b for a, b in zip(image, text, strict=True)) for text in texts]
        for image in images
    ]
    of_images = 0.0
    for row, prompt in zip(similarity, own, strict=True):
        of_images -= math.log(math.exp(row[prompt]) / sum(math.exp(s) for s in row))
    of_texts = 0.0
    for prompt in range(len(texts)):
        column = [row[prompt] for row in similarity]
        total = sum(math.exp(s) for s in column)
        positives = [s for s, its in zip(column, own, strict=True) if its == prompt]
        of_texts -= sum(math.log(math.exp(s) / total) for s in positives) / len(positives)
    return (of_images / len(images) + of_texts / len(texts)) / 2


@pytest.mark.parametrize('own', [[0, 1, 2], [0, 0, 1, 0, 2, 1], [0, 0, 0]])
def test_loss_against_loops(own):
    rng = np.random.default_rng(len(own))
    unit = [
        F.normalize(torch.from_numpy(rng.normal(size=(count, 5))), dim=1)
        for count in (len(own), max(own) + 1)
    ]
    found = contrastive_loss(*unit, torch.tensor(own), scale=7.0)
    expected = loss_in_loops(unit[0].tolist(), unit[1].tolist(), own, 7.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_with_a_prompt_an_image_it_is_the_loss_of_clip():
    loss = pytest.importorskip('open_clip.loss', reason='needs open_clip')
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    expected = loss.ClipLoss()(images, texts, torch.tensor(14.0))
    torch.testing.assert_close(contrastive_loss(images, texts, torch.arange(6), 14.0), expected)


def test_images_of_one_prompt_are_no_negatives_of_each_other():
    """Two prompts, and images that are exactly theirs: nothing is left to learn."""
    texts = torch.eye(2)
    own = torch.tensor([0, 0, 0, 1])
    found = contrastive_loss(texts[own], texts, own, scale=100.0)
    # The three images of the first prompt share its probability.
    assert found.item() == pytest.approx(math.log(3) / 2 / 2, abs=1e-5)


def test_the_loss_is_of_float32_in_mixed_precision():
    """Of embeddings as CLIP has them, whose similarities to all prompts are nearly the same."""
    torch.manual_seed(0)
    images, texts = (
        F.normalize(torch.randn(1, 64) + 0.1 * torch.randn(count, 64), dim=1) for count in (8, 4)
    )
    own = torch.arange(8) % 4
    with torch.autocast('cpu', torch.bfloat16):
        found = contrastive_loss(images, texts, own, scale=100.0)
    expected = loss_in_loops(images.tolist(), texts.tolist(), own.tolist(), 100.0)
    assert found.item() == pytest.approx(expected, rel=1e-4)


# Prompts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (('thermal', 'mfnet', 'night'), 'thermal image of a street at night'),
        (('rgb', 'mfnet', 'day'), 'colour image of a street by day'),
        (
            ('event', 'deliver', 'fog+motionblur'),
            'event camera image of a street in fog with motion blur',
        ),
        (('hha', 'nyuv2_hha', None), 'colour-coded depth image of a room'),
        (('depth', 'folder', 'dawn'), 'depth image of a place dawn'),
    ],
)
def test_words_of_an_image(image, words):
    assert prompt_words(*image, {}) == words


def test_words_that_are_given_replace_those():
    words = {'thermal': 'infrared', 'folder': 'a mine', 'night': 'in the dark'}
    assert (
        prompt_words('thermal', 'folder', 'night', words) == 'infrared image of a mine in the dark'
    )


# The commands ------------------------------------------------------------------------------------

SCENES = {'dataset': 'synthetic', 'frames': 3, 'frames_seed': 0}


def write_config(folder, **values):
    """A configuration of either stage, on generated scenes; `values` replace settings."""
    settings = {
        'model': {'name': 'segrgbx', 'size': 'b0', 'modalities': ['rgb', 'thermal']},
        'data': {
            'train': [SCENES],
            'val': {**SCENES, 'split': 'val', 'frames': 1},
            'crop_height': 64,
            'crop_width': 64,
            'batch_size': 2,
            'workers': 0,
        },
        'ma_clip': {'model': 'small-test', 'pretrained': 'random', 'rank': 2},
        'optim': {'lr': 1e-2},
        'steps': 4,
        'val_every': 4,
        'ema_decay': 0.5,
        'device': 'cpu',
    }
    (folder / 'train.yaml').write_text(yaml.safe_dump(settings | values))
    return folder / 'train.yaml'


def command(config, out, *overrides):
    return ['train', '--config', str(config), '--out', str(out), *overrides]


@pytest.fixture(scope='module')
def adapters(tmp_path_factory):
    """What the command trains in a few steps."""
    pytest.importorskip('open_clip', reason='needs open_clip')
    pytest.importorskip('transformers', reason='needs transformers')
    folder = tmp_path_factory.mktemp('adapters')
    register(folder)
    assert main(command(write_config(folder, stage='ma_clip'), folder / 'run')) == 0
    return folder / 'run' / 'ma_clip.safetensors'


@pytest.fixture(scope='module')
def trained(adapters, tmp_path_factory):
    """The folder of a run of a network with MA-CLIP, which is given images at half their size."""
    folder = tmp_path_factory.mktemp('network')
    overrides = [f'ma_clip.adapters={adapters}', 'model.input_scale=0.5']
    assert main(command(write_config(folder), folder / 'run', *overrides)) == 0
    return folder / 'run'


def test_the_file_of_adapters_says_what_they_are_of(adapters):
    weights, card = read_adapters(adapters)
    assert len(weights) == 2 * 2 * 2  # blocks, query and value, A and B
    assert all(weight.abs().sum() > 0 for weight in weights.values())  # B begins as 0
    assert (card['model'], card['pretrained'], card['seed']) == ('small-test', 'random', 0)
    assert card['modalities'] == ['rgb', 'thermal']
    assert {words.split()[0] for words in card['prompts']} == {'colour', 'thermal'}
    assert 0 <= card['val_prompt'] <= card['val_modality'] <= 100
    assert sorted(path.name for path in adapters.parent.iterdir()) == [
        'config.yaml', 'events', 'ma_clip.safetensors', 'metrics.csv'
    ]  # fmt: skip
    with (adapters.parent / 'metrics.csv').open() as file:
        measured = [row for row in csv.DictReader(file) if row['val_prompt']]
    assert int(measured[-1]['step']) == card['steps']


@pytest.mark.parametrize('steps', [1, 4])
def test_a_training_that_diverges_leaves_no_adapters(adapters, tmp_path, steps):
    """Also if the only step is the one that does it, so that a measurement alone shows it."""
    config = write_config(tmp_path, stage='ma_clip', steps=steps)
    with pytest.raises(SartmError, match=r'not finite at step 1; lower optim\.lr'):
        train(config, tmp_path / 'run', ['optim.lr=1e30'])
    assert not (tmp_path / 'run' / 'ma_clip.safetensors').exists()


RUN_WITH_SMALL_CLIP = """
import sys
from pathlib import Path
from small_clip import register
from sartm_model.cli.main import main
from sartm_model.utils.torchvision_patch import patch_torchvision_ops
patch_torchvision_ops()  # before open_clip, which imports torchvision
register(Path(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""


def test_an_error_in_a_process_that_reads_is_one_line_and_ends_the_command(adapters, tmp_path):
    ids = np.zeros((16, 16), np.uint8)
    root = write_frames(tmp_path / 'mfnet', {'1D': ids, '2D': ids})
    (root / 'rgb' / '2D.png').write_bytes(b'no image')
    source = {'dataset': 'mfnet', 'root': str(root)}
    data = {'train': [source], 'val': {**source, 'frames': 1}, 'workers': 1, 'batch_size': 8}
    config = write_config(tmp_path, stage='ma_clip', data=data)
    words = [sys.executable, '-c', RUN_WITH_SMALL_CLIP, str(tmp_path)]
    environment = child_environment()
    environment['PYTHONPATH'] += os.pathsep + str(ROOT / 'test')
    done = subprocess.run(
        [*words, *command(config, tmp_path / 'run')],
        capture_output=True,
        text=True,
        env=environment,
        timeout=5 * TIMEOUT_S,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f'sartm train: error: {root / "rgb" / "2D.png"} cannot be read')


def network_and_frames(trained):
    """The trained network, the frames of its run, and what the run kept of each."""
    network = checkpoints.build(checkpoints.load(trained / 'last.safetensors'))
    frames = FirstFrames(open_dataset('synthetic', None, 'train'), 3, 0)
    return network, list(frames), load_file(trained / 'ma_clip_embeddings.safetensors')


@torch.no_grad()
def test_an_embedding_that_is_kept_is_what_the_network_computes(trained):
    network, frames, kept = network_and_frames(trained)
    assert kept.keys() == {'0.rgb', '0.thermal'}
    computed = []
    network.ma_clip.register_forward_hook(lambda *of_call: computed.append(of_call[2]))
    for number, frame in enumerate(frames):
        images = network_inputs({k: torch.from_numpy(x) for k, x in frame.images.items()})
        network.segment(images)
        for name, embedding in computed.pop().items():
            torch.testing.assert_close(kept[f'0.{name}'][number], embedding[0])
    for index, name in enumerate(('rgb', 'thermal')):
        mean = kept[f'0.{name}'].double().numpy().mean(axis=0)
        expected = mean / np.sqrt((mean**2).sum())
        np.testing.assert_allclose(network.mean_embeddings[index], expected, atol=1e-6)


@torch.no_grad()
def test_each_sample_has_the_embeddings_of_its_frame(trained):
    """And is otherwise that of a training without MA-CLIP."""
    _, frames, kept = network_and_frames(trained)
    config = load_train_config(trained / 'config.yaml')
    both = [TrainingSamples(config.data, MFNET, ('rgb', 'thermal'), seed=0) for _ in range(2)]
    both[0].embeddings = [{name: kept[f'0.{name}'] for name in ('rgb', 'thermal')}]
    names = [frame.name for frame in frames]
    for index in range(6):
        sample, plain = (samples[index] for samples in both)
        assert torch.equal(sample.labels, plain.labels)
        assert torch.equal(sample.images['rgb'], plain.images['rgb'])
        assert plain.embeddings == {}
        for name, embedding in sample.embeddings.items():
            assert torch.equal(embedding, kept[f'0.{name}'][names.index(sample.name)])
    assert len({both[0][index].name for index in range(6)}) > 1


def test_a_step_of_the_training_computes_no_embedding(trained, adapters, tmp_path, monkeypatch):
    """A run that is stopped and resumed ends with the weights of one that was not."""
    step, embed, steps_of_calls = SegmentationTraining.training_step, MaClip.forward, []

    def stop_in_step_1(self, batch, index):
        if self.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        steps_of_calls.append('step')
        result = step(self, batch, index)
        steps_of_calls.append('done')
        return result

    def count(self, images):
        steps_of_calls.append('embed')
        return embed(self, images)

    config = write_config(tmp_path)
    overrides = [f'ma_clip.adapters={adapters}', 'model.input_scale=0.5']  # as `trained`
    words = command(config, tmp_path / 'run', *overrides)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTraining, 'training_step', stop_in_step_1)
        patch.setattr(MaClip, 'forward', count)
        with pytest.raises(SystemExit):
            main(words)
    assert steps_of_calls == ['embed'] * 3 + ['step', 'done'] * 2
    kept = tmp_path / 'run' / 'ma_clip_embeddings.safetensors'
    written = kept.stat().st_mtime_ns
    assert main([*words, '--resume']) == 0
    assert kept.stat().st_mtime_ns == written
    one, other = (
        checkpoints.load(folder / 'last.safetensors').state
        for folder in (trained, tmp_path / 'run')
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_embeddings_are_computed_anew_for_other_frames_of_a_source(tmp_path):
    class MeanOfImage(torch.nn.Module):
        def forward(self, images):
            return {name: image.mean(dim=(1, 2, 3))[:, None] for name, image in images.items()}

    config = SimpleNamespace(
        ma_clip=object(), without=(), modalities=('rgb', 'thermal'), input_scale=1.0
    )
    means = torch.zeros(2, 1)
    network = SimpleNamespace(
        config=config, ma_clip=None, mean_embeddings=means, pad=dict, resize_input=lambda x: x
    )
    scenes = open_dataset('synthetic', None, 'train')
    for count in (1, 2):  # as after frames have been added to a folder
        samples = SimpleNamespace(
            sources=[SourceConfig()],
            modalities=('rgb', 'thermal'),
            datasets=[FirstFrames(scenes, count)],
        )
        use_embeddings(MeanOfImage(), network, samples, tmp_path)
        assert {len(rows) for rows in samples.embeddings[0].values()} == {count}


def test_the_mean_embedding_is_that_of_all_frames_alike(tmp_path):
    class ThreePixels(torch.nn.Module):
        def forward(self, images):
            return {name: image[:, 0, ::200, 100] for name, image in images.items()}

    config = SimpleNamespace(
        ma_clip=object(), without=(), modalities=('rgb', 'thermal'), input_scale=1.0
    )
    network = SimpleNamespace(
        config=config,
        ma_clip=None,
        mean_embeddings=torch.zeros(2, 3),
        pad=dict,
        resize_input=lambda x: x,
    )
    train, val = (open_dataset('synthetic', None, split) for split in ('train', 'val'))
    samples = SimpleNamespace(
        sources=[SourceConfig(), SourceConfig(split='val')],
        modalities=config.modalities,
        datasets=[FirstFrames(train, 1), FirstFrames(val, 5)],
    )
    use_embeddings(ThreePixels(), network, samples, tmp_path)
    for found, name in zip(network.mean_embeddings, config.modalities, strict=True):
        total = samples.embeddings[0][name][0] + samples.embeddings[1][name].sum(dim=0)
        torch.testing.assert_close(found, total / total.norm())


def test_the_tower_of_the_checkpoint_is_that_of_the_adapters(trained, adapters):
    found = checkpoints.load(trained / 'last.safetensors').state
    tower = load_clip('small-test', 'random', '', seed=0)[0].visual
    split_attentions(tower)
    merge(tower, read_adapters(adapters)[0])
    for name, weight in tower.state_dict().items():
        assert torch.equal(found[f'ma_clip.tower.{name}'], weight)


def test_a_checkpoint_predicts_with_its_tower_and_without(trained, tmp_path, capsys):
    frame = open_dataset('synthetic', None, 'val')[0]
    predictor = Predictor(trained / 'last.safetensors', device='cpu')
    results = [predictor.predict(given).labels for given in (frame.images, {'rgb': frame.rgb})]
    assert all(labels.shape == frame.labels.shape for labels in results)
    capsys.readouterr()
    assert main(['info', str(trained / 'last.safetensors')]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole['model']['ma_clip']['context'] == 'image'
    # The same without the tower.
    small = tmp_path / 'small.safetensors'
    assert main(['adapters', str(trained / 'last.safetensors'), '--out', str(small)]) == 0
    capsys.readouterr()
    assert main(['info', str(small)]) == 0
    left = json.loads(capsys.readouterr().out)
    assert left['model']['ma_clip'] == {**whole['model']['ma_clip'], 'context': 'mean'}
    tower = whole['parameters']['ma_clip']
    assert whole['parameters']['total'] - left['parameters']['total'] == tower > 100_000
    assert left['flops']['pair'] < whole['flops']['pair']
    assert (Predictor(small, device='cpu').predict(frame.images).labels == results[0]).mean() > 0.5
    assert main(['adapters', str(small), '--out', str(tmp_path / 'no.safetensors')]) == 2
    assert 'has no image tower of MA-CLIP' in capsys.readouterr().err


@pytest.mark.slow
def test_the_exported_file_gives_the_same_labels(trained, tmp_path):
    pytest.importorskip('onnxscript', reason='needs onnxscript')
    onnx_predictor = pytest.importorskip('sartm_model.inference.onnx_predictor')
    file = tmp_path / 'network.onnx'
    checkpoint = trained / 'last.safetensors'
    size = ['--height', '96', '--width', '128', '--thermal-type', 'uint8']
    assert main(['export', '--checkpoint', str(checkpoint), '--out', str(file), *size]) == 0
    exported = onnx_predictor.OnnxPredictor(file, device='cpu')
    predictor = Predictor(checkpoint, device='cpu')
    for seed in range(2):
        frame = render(seed, 96, 128)
        for given in (frame.images, {'rgb': frame.rgb}, {'thermal': frame.thermal}):
            found, expected = (one.predict(given, confidence=True) for one in (exported, predictor))
            assert (found.labels == expected.labels).mean() > 0.99
            np.testing.assert_allclose(
                found.confidence.astype(int), expected.confidence.astype(int), atol=2
            )


def other_weights(folder):
    """Weights of CLIP that no adapters were trained for."""
    path = folder / 'other.safetensors'
    save_file(load_clip('small-test', 'random', '', seed=5)[0].state_dict(), path)
    return path


@pytest.mark.parametrize(
    ('overrides', 'words'),
    [
        (
            ['ma_clip.adapters=none.safetensors'],
            'no adapters of MA-CLIP none.safetensors; expected',
        ),
        (['ma_clip.pretrained=no-such-tag'], "'no-such-tag' cannot be loaded"),
        (
            ['ma_clip.pretrained={other}'],
            'has adapters for small-test with weights random, and not',
        ),
        (['ma_clip.model=no-model'], "model 'no-model' with weights 'random' cannot be loaded"),
        (['model.modalities=[rgb,depth]'], 'on rgb, thermal and not on depth, which model.mod'),
        (['model.name=sartm', 'model.size=nano'], 'is set, but sartm has no MA-CLIP'),
        (['stage=ma_clip'], 'with stage ma_clip, which trains new ones; leave it out'),
        (['ma_clip.context=both'], "ma_clip.context is 'both'; expected one of image, mean"),
        (['ma_clip.templates=[thermal]'], "ma_clip.templates is ['thermal']; expected one or more"),
    ],
)
def test_what_cannot_be_used_is_one_line(adapters, tmp_path, capsys, overrides, words):
    given = [f'ma_clip.adapters={adapters}', *overrides]
    given = [text.format(other=other_weights(tmp_path)) if '{' in text else text for text in given]
    capsys.readouterr()
    assert main(command(write_config(tmp_path), tmp_path / 'run', *given)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / 'run').exists()


def test_the_right_weights_with_another_activation_are_refused(adapters, tmp_path, capsys):
    config, given = write_config(tmp_path), f'ma_clip.adapters={adapters}'
    register(tmp_path, quick_gelu=True)
    capsys.readouterr()
    try:
        assert main(command(config, tmp_path / 'run', given)) == 2
    finally:
        register(tmp_path)
    [line] = capsys.readouterr().err.splitlines()
    assert 'has adapters for small-test with weights random, and not' in line
    assert line.endswith('ma_clip.pretrained name: quick_gelu (False before, True now)')


def test_adapters_are_not_trained_into_a_folder_that_has_some(adapters, tmp_path, capsys):
    config = write_config(tmp_path, stage='ma_clip')
    before = adapters.read_bytes()
    for words in ([], ['--resume']):
        assert main([*command(config, adapters.parent), *words]) == 2
        assert 'choose another folder' in capsys.readouterr().err
    assert adapters.read_bytes() == before


def test_a_network_starts_from_a_checkpoint_with_ma_clip(trained, adapters, tmp_path, capsys):
    small = tmp_path / 'small.safetensors'
    assert main(['adapters', str(trained / 'last.safetensors'), '--out', str(small)]) == 0
    config = yaml.safe_load(write_config(tmp_path, steps=1).read_text())
    del config['model']
    (tmp_path / 'train.yaml').write_text(yaml.safe_dump(config))
    words = command(tmp_path / 'train.yaml', tmp_path / 'a', f'start_from={small}')
    # With the adapters alone, too: the settings that the error names are those that are missing.
    for given in ([], [f'ma_clip.adapters={adapters}']):
        assert main([*words, *given]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert 'has the mean embeddings of MA-CLIP and not its image tower; give' in line
        assert line.endswith('its adapters as ma_clip.adapters, with ma_clip.context=mean')
        assert not (tmp_path / 'a').exists()
    assert main([*words, f'ma_clip.adapters={adapters}', 'ma_clip.context=mean']) == 0
    means = checkpoints.load(tmp_path / 'a' / 'last.safetensors')
    assert means.config.ma_clip.context == 'mean'
    start = f'start_from={trained / "last.safetensors"}'
    for given in ([], [f'ma_clip.adapters={adapters}']):
        words = command(tmp_path / 'train.yaml', tmp_path / 'b', start, *given)
        assert main([*words, 'ma_clip.context=mean']) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.endswith('and take the tower out of the result by sartm adapters')
    assert main(command(tmp_path / 'train.yaml', tmp_path / 'b', start)) == 0
    kept = [load_file(run / 'ma_clip_embeddings.safetensors') for run in (trained, tmp_path / 'b')]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_adapters_are_refused_for_a_network_that_was_trained_without(adapters, tmp_path, capsys):
    config = write_config(tmp_path)
    assert main(command(config, tmp_path / 'plain', 'steps=1', 'val_every=1')) == 0
    start = f'start_from={tmp_path / "plain" / "last.safetensors"}'
    words = command(config, tmp_path / 'run', start)
    capsys.readouterr()
    assert main([*words, f'ma_clip.adapters={adapters}']) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith('is of a network without MA-CLIP; leave ma_clip.adapters out')
    assert main([*words, 'steps=1', 'val_every=1']) == 0
