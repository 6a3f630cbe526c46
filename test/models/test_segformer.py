"""SegFormer against the one of `transformers`, its published weights, and all that uses it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_training import splits, write_config, write_folder
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sartm_model.cli.main import main
from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.layers.mit_weights import load_imagenet
from sartm_model.models.segformer import Segformer
from sartm_model.models.summary import count_flops
from sartm_model.utils.torchvision_patch import patch_torchvision_ops

patch_torchvision_ops()
segformer = pytest.importorskip('transformers.models.segformer', reason='needs transformers')

PUBLISHED_MB = {'b0': 14.3, 'b3': 178}
"""Sizes of `model.safetensors` in the model repositories nvidia/mit-b0 and nvidia/mit-b3: 4 bytes a
parameter, ImageNet's classifier of 1000 classes included."""


def model(size='b0', modality='thermal', num_classes=9, seed=0) -> Segformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = ModelConfig(name='segformer', size=size, modalities=(modality,))
        network = Segformer(config, num_classes).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network


def theirs(network: Segformer):
    """The whole network of `transformers` with the same weights, which mixes after upsampling."""
    config, head = network.encoder.config, network.decode_head
    config.num_labels = network.num_classes
    reference = segformer.SegformerForSemanticSegmentation(config).eval()
    reference.segformer.load_state_dict(network.encoder.state_dict())
    other = reference.decode_head
    for layer, projection in zip(other.linear_projections, head.projections, strict=True):
        layer.proj.weight.copy_(projection.weight[..., 0, 0])
        layer.proj.bias.copy_(projection.bias)
    # From the last stage to the first.
    other.linear_fuse.weight.copy_(torch.cat([m.weight for m in head.mixers][::-1], dim=1))
    other.batch_norm.load_state_dict(head.norm.state_dict())
    other.classifier.load_state_dict(head.classifier.state_dict())
    return reference


@torch.no_grad()
@pytest.mark.parametrize(('modality', 'channels'), [('thermal', 1), ('rgb', 3)])
def test_logits_are_those_of_transformers(modality, channels):
    network = model(modality=modality)
    image = torch.randn(2, channels, 64, 96)
    expected = theirs(network)(image.expand(-1, 3, -1, -1)).logits
    found = network({modality: image}).logits['mlp']
    torch.testing.assert_close(found, F.interpolate(expected, scale_factor=4, mode='bilinear'))


@torch.no_grad()
def test_random_convolutions_keep_the_scale_of_a_signal():
    """Noise of variance 1 leaves each depthwise convolution with variance 2, which ReLU halves."""
    convs = [m for m in model().encoder.modules() if getattr(m, 'groups', 1) > 1]
    assert len(convs) == 8
    for conv in convs:
        noise = torch.randn(4, conv.in_channels, 32, 32)
        inner = conv(noise)[..., 1:-1, 1:-1]  # without the zeros of the padding
        assert inner.var() == pytest.approx(2, rel=0.25)  # over 128 random kernels at least


@torch.no_grad()
def test_the_inference_form_computes_the_same():
    network = model()
    reference = theirs(network)
    network.optimize_for_inference()
    image = torch.randn(1, 1, 96, 64)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        reference(image.expand(-1, 3, -1, -1))
    assert count_flops(network, 96, 64) < 0.5 * counter.get_total_flops()
    expected = reference(image.expand(-1, 3, -1, -1)).logits[0]
    [found], extent = network.forward_logits({'thermal': image})
    assert extent == (24, 16)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_image_of_any_size_is_padded():
    network = model()
    image = torch.randn(1, 1, 50, 70)
    padded = F.pad(image, (0, 26, 0, 14), mode='replicate')
    expected = network({'thermal': padded}).logits['mlp'][..., :50, :70]
    torch.testing.assert_close(network({'thermal': image}).logits['mlp'], expected)


def test_two_modalities_are_refused():
    with pytest.raises(SartmError, match='segformer takes one'):
        Segformer(ModelConfig(name='segformer', size='b0'), 9)


@pytest.mark.parametrize('size', PUBLISHED_MB)
def test_an_encoder_has_as_many_parameters_as_the_published_file(size):
    encoder = model(size).encoder
    classifier = 1000 * (encoder.config.hidden_sizes[-1] + 1)
    count = sum(p.numel() for p in encoder.parameters()) + classifier
    assert 4e-6 * count == pytest.approx(PUBLISHED_MB[size], rel=4e-3)


# Published weights -------------------------------------------------------------------------------


def published(size='b0', seed=1):
    """ImageNet's classifier network of `transformers` with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return segformer.SegformerForImageClassification(model(size).encoder.config).eval()


def in_published_names(state):
    """Rename a state dict to the names in `pytorch_model.bin` of nvidia/mit-b0."""
    renamed = {}
    for key, value in state.items():
        parts = key.split('.')
        if parts[0] == 'classifier':
            renamed[key] = value
            continue
        assert parts[:2] == ['segformer', 'stages'], key
        stage, kind, *rest = parts[2:]
        tail = '.'.join(rest)
        if kind == 'blocks':
            tail = {
                'layernorm_before': 'layer_norm_1', 'layernorm_after': 'layer_norm_2'
            }.get(rest[1], '.'.join(rest[1:-1])) + '.' + rest[-1]  # fmt: skip
            for new, old in (
                ('attention.q_proj', 'attention.self.query'),
                ('attention.k_proj', 'attention.self.key'),
                ('attention.v_proj', 'attention.self.value'),
                ('attention.o_proj', 'attention.output.dense'),
                ('attention.sequence_reduction.sequence_reduction', 'attention.self.sr'),
                ('attention.sequence_reduction.layer_norm', 'attention.self.layer_norm'),
                ('mlp.fc1', 'mlp.dense1'),
                ('mlp.fc2', 'mlp.dense2'),
            ):
                tail = tail.replace(new, old)
            renamed[f'segformer.encoder.block.{stage}.{rest[0]}.{tail}'] = value
        else:
            old = {'patch_embeddings': 'patch_embeddings', 'layer_norm': 'layer_norm'}[kind]
            renamed[f'segformer.encoder.{old}.{stage}.{tail}'] = value
    return renamed


@torch.no_grad()
@pytest.mark.parametrize('form', ['pytorch_model.bin', 'save_pretrained'])
def test_it_starts_from_published_weights(tmp_path, form):
    source = published()
    if form == 'save_pretrained':
        source.save_pretrained(tmp_path)
    else:
        torch.save(in_published_names(source.state_dict()), tmp_path / form)
    network = model()
    head = network.decode_head.classifier.weight.clone()
    network.load_pretrained('imagenet_weights', str(tmp_path))
    image = torch.randn(1, 3, 64, 64)
    expected = source.segformer(image, output_hidden_states=True).hidden_states
    found = network.encode({'thermal': image}, None)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(network.decode_head.classifier.weight, head)


def test_weights_of_another_size_are_named(tmp_path):
    published('b1').save_pretrained(tmp_path)
    with pytest.raises(SartmError, match=r'stages\.0\..* instead of'):
        load_imagenet(model().encoder, 'b0', str(tmp_path))


def test_an_empty_folder_and_a_pickle_are_refused(tmp_path):
    with pytest.raises(SartmError, match=r'neither model\.safetensors nor pytorch_model\.bin'):
        load_imagenet(model().encoder, 'b0', str(tmp_path))
    torch.save({'weight': print}, tmp_path / 'pytorch_model.bin')
    with pytest.raises(SartmError, match='cannot be read'):
        load_imagenet(model().encoder, 'b0', str(tmp_path))
    with pytest.raises(SartmError, match='does not exist'):
        load_imagenet(model().encoder, 'b0', str(tmp_path / 'other.bin'))


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    import huggingface_hub

    def offline(repo, name):
        assert (repo, name) == ('nvidia/mit-b0', 'pytorch_model.bin')
        raise OSError('no network')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', offline)
    with pytest.raises(SartmError, match=r'cannot be downloaded \(no network\).*imagenet_weights'):
        load_imagenet(model().encoder, 'b0', 'hub')


# The doors ---------------------------------------------------------------------------------------


def scene(seed: int, size=(64, 96)) -> tuple[np.ndarray, np.ndarray]:
    """A thermal image in which what is warm is a person, and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint8)
    top, left = rng.integers(0, size[0] - 24), rng.integers(0, size[1] - 24)
    labels[top : top + 24, left : left + 24] = 2
    return (60 + 120 * (labels > 0) + rng.integers(0, 40, size)).astype(np.uint8), labels


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Frames of thermal images alone, and a network trained on them for a few steps."""
    root = tmp_path_factory.mktemp('thermal_alone')
    frames = [dict(zip(('thermal', 'labels'), scene(seed), strict=True)) for seed in range(8)]
    data = write_folder(root, frames, train=6)
    write_config(
        root / 'train.yaml',
        {**splits(data), 'object_crop': 0.5, 'paste_objects': 0.5},
        steps=30,
        model={'name': 'segformer', 'size': 'b0', 'modalities': ['thermal']},
        optim={'lr': 1e-3},
    )
    assert main(['train', '--config', str(root / 'train.yaml'), '--out', str(root / 'run')]) == 0
    return root


def test_it_is_trained_and_evaluated_on_thermal_alone(run, tmp_path):
    checkpoint = run / 'run' / 'last.safetensors'
    where = ['--dataset', 'folder', '--root', str(run / 'data.yaml'), '--split', 'val']
    out = tmp_path / 'figures.json'
    written = ['--json', str(out), '--report', str(tmp_path)]
    assert main(['evaluate', '--checkpoint', str(checkpoint), *where, *written]) == 0
    figures = json.loads(out.read_text())
    assert figures['per_class_iou']['person'] > 60
    assert figures['settings']['modalities'] == ['thermal']
    assert 'thermal' in (tmp_path / 'report.html').read_text()
    shift = ['--corruption', 'thermal_shift', '--severity', '5', '--json', str(out)]
    assert main(['evaluate', '--checkpoint', str(checkpoint), *where, *shift]) == 0
    assert json.loads(out.read_text())['miou'] < figures['miou']
    assert main(['predict', '--checkpoint', str(checkpoint), *where, '--out', str(tmp_path)]) == 0
    predictor = Predictor(checkpoint, device='cpu')
    labels = cv2.imread(str(tmp_path / '6_labels.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, predictor.predict(None, scene(6)[0]).labels)


def test_a_data_set_of_thermal_alone_is_checked(run, capsys):
    assert main(['data', 'check', '--dataset', 'folder', '--root', str(run / 'data.yaml')]) == 0
    assert 'thermal uint8' in capsys.readouterr().out


def test_what_it_does_not_take_is_refused_in_one_line(run):
    predictor = Predictor(run / 'run' / 'last.safetensors', device='cpu')
    rgb = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(SartmError, match='rgb image given, but the network takes thermal'):
        predictor.predict(rgb, scene(0)[0])


def test_it_is_described_and_timed(run, capsys):
    checkpoint = str(run / 'run' / 'last.safetensors')
    assert main(['info', checkpoint]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['parameters']['encoder'] > 3e6
    size = ['--height', '64', '--width', '96', '--iterations', '1', '--device', 'cpu']
    assert main(['benchmark', '--checkpoint', checkpoint, *size]) == 0
    assert 'encoder' in json.loads(capsys.readouterr().out)['stages_ms']


def test_the_exported_file_gives_the_same_labels(run, tmp_path):
    pytest.importorskip('onnxscript', reason='needs onnxscript')
    onnxruntime_predictor = pytest.importorskip('sartm_model.inference.onnx_predictor')
    checkpoint, file = run / 'run' / 'last.safetensors', tmp_path / 'thermal.onnx'
    size = ['--height', '64', '--width', '96']
    assert main(['export', '--checkpoint', str(checkpoint), '--out', str(file), *size]) == 0
    exported = onnxruntime_predictor.OnnxPredictor(file, device='cpu')
    assert exported.modalities == ('thermal',)
    predictor = Predictor(checkpoint, device='cpu')
    for seed in (10, 11):
        thermal, _ = scene(seed)
        found, expected = (one.predict(None, thermal) for one in (exported, predictor))
        assert (found.labels == expected.labels).mean() > 0.999
        assert len(np.unique(expected.labels)) > 1


def test_the_checkpoint_is_exact(run):
    loaded = checkpoints.load(run / 'run' / 'last.safetensors')
    assert loaded.config == ModelConfig(name='segformer', size='b0', modalities=('thermal',))
    rebuilt = checkpoints.build(loaded, merged=False).state_dict()
    assert all(torch.equal(rebuilt[key], value) for key, value in loaded.state.items())
    assert loaded.label_space.classes == MFNET.classes
