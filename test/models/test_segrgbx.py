"""The network SegRGB-X: streams of shared weights, its parts by formula, and all that uses it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from small_training import write_config, write_folder

from sartm_model.cli.main import main
from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.models.segrgbx import Segrgbx
from sartm_model.models.segrgbx.dsrm import Dsrm
from sartm_model.models.segrgbx.modality_embedding import ModalityEmbedding
from sartm_model.utils.torchvision_patch import patch_torchvision_ops

patch_torchvision_ops()
segformer = pytest.importorskip('transformers.models.segformer', reason='needs transformers')

MODALITIES = ('rgb', 'depth', 'thermal', 'event_voxel5')
CHANNELS = dict(zip(MODALITIES, (3, 1, 1, 5), strict=True))
PARTS = ('modality_embedding', 'dsrm')


def model(without=(), modalities=MODALITIES, size='b0', seed=0) -> Segrgbx:
    """A network whose every part has an effect."""
    config = ModelConfig(name='segrgbx', size=size, modalities=modalities, without=without)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Segrgbx(config, 9).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, Dsrm):
                module.modulation.weight.data.normal_(std=0.1)
        for vector in network.missing_modality_embedding:
            vector.data.normal_()
    return network


def images(*names, batch=2, size=(64, 96), seed=0):
    generator = torch.Generator().manual_seed(seed)
    every = {
        name: torch.randn(batch, channels, *size, generator=generator)
        for name, channels in CHANNELS.items()
    }
    return {name: every[name] for name in names}


def logits(network, given, drop_mask=None):
    with torch.no_grad():
        return network(given, drop_mask).logits['mlp']


def mask(*dropped, batch=2):
    return torch.tensor([[name in dropped for name in MODALITIES]] * batch)


# The streams -------------------------------------------------------------------------------------


@torch.no_grad()
def test_both_streams_are_the_encoder_of_transformers_with_the_same_weights():
    """Two encoders of `transformers`, one a stream, with the FRM and FFM between their stages."""
    network = model(without=PARTS)
    given = images('rgb', 'event_voxel5')
    streams = []
    for name, image in given.items():
        config = segformer.SegformerConfig(
            hidden_sizes=[32, 64, 160, 256], depths=[2, 2, 2, 2], num_channels=image.shape[1]
        )
        state = dict(network.encoder.mit.state_dict())
        if name != 'rgb':
            own = network.encoder.patch_embeddings[name].state_dict()
            state.update({f'stages.0.patch_embeddings.{key}': own[key] for key in own})
        encoder = segformer.SegformerModel(config).eval()
        encoder.load_state_dict(state)
        streams.append(encoder.stages)
    first, second = given.values()
    found = network.encode(given, None)
    for stage_of_rgb, stage_of_x, fusion, fused in zip(
        *streams, network.fusions, found, strict=True
    ):
        first, second = fusion.rectification(stage_of_rgb(first), stage_of_x(second))
        torch.testing.assert_close(fused, fusion.fusion(first, second), atol=1e-4, rtol=1e-4)


def test_a_further_modality_adds_one_patch_embedding_and_a_vector_of_each_kind():
    two, three = (model(modalities=MODALITIES[:count]) for count in (2, 3))
    counts = [sum(p.numel() for p in network.parameters()) for network in (two, three)]
    patch_embedding = 7 * 7 * 32 + 32 + 2 * 32
    assert counts[1] - counts[0] == patch_embedding + 512 + (32 + 64 + 160 + 256)


def test_a_weight_of_a_block_is_that_of_both_streams():
    network = model()
    given = [images('rgb'), images('depth'), images('event_voxel5')]
    before = [logits(network, one) for one in given]
    for block in (network.encoder.mit.stages[2].blocks[1], network.encoder.mit.stages[0].blocks[0]):
        block.mlp.fc1.weight.data.mul_(3)
    assert all(
        (logits(network, g) - b).abs().max() > 1e-4 for g, b in zip(given, before, strict=True)
    )


def test_each_pair_gives_other_results():
    network = model()
    given = images('rgb', 'depth')
    same_image = {'rgb': given['rgb'], 'thermal': given['depth']}
    results = [
        logits(network, given),
        logits(network, same_image),
        logits(network, images('rgb', 'event_voxel5')),
        logits(network, images('rgb')),
    ]
    for number, one in enumerate(results):
        for other in results[:number]:
            assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize('without', [(), PARTS[:1], PARTS[1:], PARTS])
def test_what_tells_modalities_apart_beside_the_patch_embedding(without):
    network = model(without)
    embeddings = network.encoder.patch_embeddings
    embeddings['thermal'].load_state_dict(embeddings['depth'].state_dict())
    given = images('rgb', 'depth')
    other = logits(network, {'rgb': given['rgb'], 'thermal': given['depth']})
    is_same = torch.equal(logits(network, given), other)
    assert is_same == (without == PARTS)


# Missing modalities ------------------------------------------------------------------------------


@pytest.mark.parametrize('dropped', [('rgb',), ('depth',)])
def test_a_dropped_modality_is_one_that_is_not_given(dropped):
    network = model()
    given = images('rgb', 'depth')
    [left] = given.keys() - set(dropped)
    alone = logits(network, {left: given[left]})
    torch.testing.assert_close(logits(network, given, mask(*dropped)), alone)
    given[dropped[0]] = images(dropped[0], seed=1)[dropped[0]]
    torch.testing.assert_close(logits(network, given, mask(*dropped)), alone)
    assert (logits(network, given) - alone).abs().max() > 1e-2


@pytest.mark.parametrize(('given', 'missing'), [('rgb', 1), ('depth', 0)])
def test_a_missing_stream_has_the_vector_of_its_own_side(given, missing):
    before = logits(model(), images(given))
    for stage in range(4):
        for side in (0, 1):
            network = model()
            network.missing_modality_embedding[stage].data[side] += 1
            change = (logits(network, images(given)) - before).abs().max()
            assert (change > 1e-3) == (side == missing)


def test_each_sample_of_a_batch_has_its_own_mask():
    network = model()
    given = images('rgb', 'depth', batch=3)
    masks = torch.cat([mask('depth', batch=1), mask(batch=1), mask('rgb', batch=1)])
    found = logits(network, given, masks)
    for number in range(3):
        one = {name: image[number : number + 1] for name, image in given.items()}
        expected = logits(network, one, masks[number : number + 1])
        torch.testing.assert_close(found[number : number + 1], expected, atol=1e-4, rtol=1e-4)


def test_of_several_x_those_that_are_left_out_have_no_part():
    network = model()
    given = images(*MODALITIES)
    pair = logits(network, images('rgb', 'thermal'))
    found = logits(network, given, mask('depth', 'event_voxel5'))
    torch.testing.assert_close(found, pair, atol=1e-4, rtol=1e-4)
    assert (logits(network, given) - pair).abs().max() > 1e-2
    alone = logits(network, given, mask('rgb', 'depth', 'event_voxel5'))
    torch.testing.assert_close(alone, logits(network, images('thermal')), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_embeddings_of_several_x_are_averaged():
    encoder = model().encoder
    given = images('depth', 'event_voxel5')
    weights = torch.zeros(2, len(MODALITIES))
    weights[:, MODALITIES.index('depth')] = torch.tensor([0.5, 1])
    weights[:, MODALITIES.index('event_voxel5')] = torch.tensor([0.5, 0])
    found, *_ = encoder.embed(given, weights)
    each = [encoder.patch_embeddings[name](image)[0] for name, image in given.items()]
    torch.testing.assert_close(found[0], (each[0][0] + each[1][0]) / 2)
    torch.testing.assert_close(found[1], each[0][1])


def test_a_training_step_reaches_the_weights_of_its_pair_alone():
    network = model().train()
    network(images('rgb', 'depth')).logits['mlp'].square().mean().backward()
    embeddings = network.encoder.patch_embeddings
    assert embeddings['depth'].proj.weight.grad.abs().sum() > 0
    assert embeddings['thermal'].proj.weight.grad is None
    for vectors in (network.context, *(part.prompts for part in network.modality_embeddings)):
        changed = vectors.grad.abs().sum(dim=1) > 0
        assert changed.tolist() == [True, True, False, False]


# The parts by formula ----------------------------------------------------------------------------


def linear(layer, x):
    return layer.weight.detach().double().numpy() @ x + layer.bias.detach().double().numpy()


def test_modality_embedding_by_its_formula():
    torch.manual_seed(0)
    part = ModalityEmbedding(width=6, context_width=4, num_modalities=3)
    tokens, context = torch.randn(2, 5, 6), torch.randn(2, 4)
    weights = torch.tensor([[0, 1.0, 0], [0.25, 0, 0.75]])
    found = part(tokens, context, weights).detach().numpy()
    prompts = part.prompts.detach().double().numpy()
    for sample, prompt in enumerate((prompts[1], 0.25 * prompts[0] + 0.75 * prompts[2])):
        hidden = linear(part.control[0], context[sample].double().numpy())
        control = np.exp(linear(part.control[2], hidden / (1 + np.exp(-hidden))))
        vector = linear(part.injection, control / control.sum() * prompt)
        for number in range(5):
            expected = tokens[sample, number].numpy() + vector
            np.testing.assert_allclose(found[sample, number], expected, atol=1e-6)


def test_dsrm_by_its_formula():
    torch.manual_seed(0)
    part = Dsrm(width=3, guidance_width=4)
    x, guidance = torch.randn(2, 3, 2, 5), torch.randn(2, 4)
    torch.testing.assert_close(part(x, guidance), x)  # as it begins
    part.modulation.weight.data.normal_()
    part.modulation.bias.data.normal_()
    part.gate_scale.data.fill_(3.0)
    part.gate_shift.data.fill_(-0.5)
    found = part(x, guidance).detach().numpy()
    project = part.projection.weight[..., 0, 0].detach().double().numpy()
    offset = part.projection.bias.detach().double().numpy()
    for sample in range(2):
        s = guidance[sample].double().numpy()
        modulation = linear(part.modulation, s)
        for row in range(2):
            for column in range(5):
                f = x[sample, :, row, column].double().numpy()
                projected = project @ f + offset
                cosine = projected @ s / np.linalg.norm(projected) / np.linalg.norm(s)
                gate = 1 / (1 + np.exp(0.5 - 3 * cosine))
                expected = f + gate * (modulation[:3] * f + modulation[3:])
                np.testing.assert_allclose(found[sample, :, row, column], expected, atol=1e-5)


@torch.no_grad()
def test_the_parts_are_in_their_places():
    """The vector of each stage before its blocks, of both streams; the DSRM after the last."""
    network = model()
    calls = []

    def record(stage, part):
        def hook(module, inputs, output):
            calls.append((stage, part, tuple(inputs[0].shape)))

        return hook

    for stage, embedding in enumerate(network.modality_embeddings):
        embedding.register_forward_hook(record(stage, 'embedding'))
        network.encoder.mit.stages[stage].blocks[0].register_forward_hook(record(stage, 'block'))
    network.dsrm.register_forward_hook(record(3, 'dsrm'))
    network.encode(images('rgb', 'depth', batch=1), None)
    widths, pixels = (32, 64, 160, 256), (384, 96, 24, 6)
    expected = []
    for stage, (width, count) in enumerate(zip(widths, pixels, strict=True)):
        expected += [(stage, part, (2, count, width)) for part in ('embedding', 'block')]
    assert calls == [*expected, (3, 'dsrm', (2, 256, 2, 3))]


# Settings and published weights ------------------------------------------------------------------


def test_a_part_that_is_left_out_has_no_weights():
    whole = model().state_dict().keys()
    left = model(without=('dsrm',)).state_dict().keys()
    assert whole - left == {key for key in whole if key.startswith('dsrm.')}
    bare = model(without=PARTS).state_dict().keys()
    kinds = ('dsrm.', 'modality_embeddings.', 'context')
    assert whole - bare == {key for key in whole if key.startswith(kinds)}


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'without': ('head',)}, "'head'; segrgbx can do without modality_embedding and dsrm and"),
        ({'modalities': ('rgb',)}, r"\['rgb'\]; segrgbx takes rgb first"),
        ({'modalities': ('depth', 'event')}, r"\['depth', 'event'\]; segrgbx takes rgb first"),
        ({'modalities': ('depth', 'rgb')}, r"\['depth', 'rgb'\]; expected rgb first"),
        ({'size': 'b5'}, "'b5'; expected one of b0, b1, b2, b3, b4"),
    ],
)
def test_settings_that_it_does_not_take_are_refused(settings, words):
    with pytest.raises(SartmError, match=words):
        model(**settings)


@torch.no_grad()
def test_it_starts_from_published_weights(tmp_path):
    source = segformer.SegformerForImageClassification(model().encoder.mit.config).eval()
    source.save_pretrained(tmp_path)
    network = model()
    network.load_pretrained('imagenet_weights', str(tmp_path))
    stages = source.segformer.stages
    rgb = images('rgb')['rgb']
    tokens, height, width = network.encoder.embed({'rgb': rgb}, torch.ones(2, len(MODALITIES)))
    expected = stages[0](rgb)
    torch.testing.assert_close(network.encoder.transform(0, tokens, height, width), expected)
    # A modality begins as a grey image would.
    grey = images('depth')['depth']
    expected = stages[0].patch_embeddings(grey.expand(-1, 3, -1, -1))[0]
    for name in ('depth', 'event_voxel5'):
        image = grey.expand(-1, CHANNELS[name], -1, -1)
        found, *_ = network.encoder.embed({name: image}, torch.ones(2, len(MODALITIES)))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(SartmError, match='sam2_weights is set, but segrgbx'):
        network.load_pretrained('sam2_weights', 'sam2.pt')


# The doors ---------------------------------------------------------------------------------------

NETWORK = ('rgb', 'depth', 'event')
SPACE = {'name': 'yard', 'names': ['ground', 'box']}


def scene(seed: int, x: str, size=(64, 96)):
    """A frame in which X shows the box and RGB does not; labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint8)
    top, left = rng.integers(0, size[0] - 32), rng.integers(0, size[1] - 32)
    labels[top : top + 32, left : left + 32] = 1
    rgb = rng.integers(0, 255, (*size, 3), np.uint8)
    if x == 'depth':
        seen = np.where(labels > 0, 2000, 9000).astype(np.uint16)
    else:
        seen = np.repeat(np.where(labels > 0, 250, 10).astype(np.uint8)[..., None], 3, axis=2)
    return {'rgb': rgb, x: seen}, labels


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Two data sets, one with depth and one with events."""
    made = []
    for x in NETWORK[1:]:
        root = tmp_path_factory.mktemp(x)
        frames = []
        for number in range(6):
            images, labels = scene(number, x)
            frames.append({**images, 'labels': labels})
        declared = write_folder(root, frames, train=4, label_space=SPACE)
        made.append({'dataset': 'folder', 'root': str(declared), 'modalities': ['rgb', x]})
    return made


def train(sources, folder, steps):
    validation = [{**source, 'split': 'val'} for source in sources]
    write_config(
        folder / 'train.yaml',
        {'train': sources, 'val': validation[0], 'more_val': validation[1:]},
        steps,
        model={'name': 'segrgbx', 'size': 'b0', 'modalities': list(NETWORK)},
        optim={'lr': 1e-3},
    )
    command = ['train', '--config', str(folder / 'train.yaml'), '--out', str(folder / 'run')]
    assert main(command) == 0
    return folder / 'run' / 'last.safetensors'


@pytest.fixture(scope='module')
def checkpoint(sources, tmp_path_factory):
    """A network that a joint run of a few steps has trained."""
    return train(sources, tmp_path_factory.mktemp('joint'), steps=12)


def test_it_is_evaluated_and_predicts(checkpoint, sources, tmp_path, capsys):
    predictor = Predictor(checkpoint, device='cpu')
    for source, x in zip(sources, NETWORK[1:], strict=True):
        where = ['--dataset', 'folder', '--root', source['root'], '--split', 'val']
        mious = {}
        for modality in ('both', f'{x},rgb', 'rgb', x):
            chosen = ['--modality', modality, '--json', str(tmp_path / 'figures.json')]
            assert main(['evaluate', '--checkpoint', str(checkpoint), *where, *chosen]) == 0
            mious[modality] = json.loads((tmp_path / 'figures.json').read_text())['miou']
        assert mious['both'] == mious[f'{x},rgb'] > mious['rgb']
        out = tmp_path / x
        assert main(['predict', '--checkpoint', str(checkpoint), *where, '--out', str(out)]) == 0
        labels = cv2.imread(str(out / '4_labels.png'), cv2.IMREAD_UNCHANGED)
        expected = predictor.predict(scene(4, x)[0]).labels
        np.testing.assert_array_equal(labels, expected)
    capsys.readouterr()
    assert main(['info', str(checkpoint)]) == 0
    assert json.loads(capsys.readouterr().out)['model']['without'] == []
    size = ['--height', '64', '--width', '96', '--iterations', '1', '--device', 'cpu']
    assert main(['benchmark', '--checkpoint', str(checkpoint), *size]) == 0
    assert 'encoder and fusion' in json.loads(capsys.readouterr().out)['stages_ms']


def test_a_homography_moves_the_second_image_onto_the_first_modality_alone(checkpoint):
    depth, event = (scene(4, x)[0] for x in NETWORK[1:])
    plain, moving = Predictor(checkpoint, device='cpu'), Predictor(checkpoint, device='cpu')
    moving.homography = np.array([[1, 0, 40], [0, 1, 0], [0, 0, 1]], float)
    for given, moved in (
        ({**depth, 'event': event['event']}, {'depth'}),
        (event, {'event'}),
        ({'depth': depth['depth'], 'event': event['event']}, set()),
        ({'event': event['event']}, set()),
    ):
        before, after = plain.preprocess(given).images, moving.preprocess(given).images
        for name in given:
            if name in moved:
                torch.testing.assert_close(after[name][..., 40:], before[name][..., :-40])
            else:
                torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


@pytest.mark.slow
def test_the_exported_file_gives_the_same_labels_of_each_pair(checkpoint, tmp_path):
    pytest.importorskip('onnxscript', reason='needs onnxscript')
    onnx_predictor = pytest.importorskip('sartm_model.inference.onnx_predictor')
    file = tmp_path / 'joint.onnx'
    size = ['--height', '64', '--width', '96', '--thermal-type', 'uint16']
    assert main(['export', '--checkpoint', str(checkpoint), '--out', str(file), *size]) == 0
    exported = onnx_predictor.OnnxPredictor(file, device='cpu')
    predictor = Predictor(checkpoint, device='cpu')
    for x in NETWORK[1:]:
        frame = scene(10, x)[0]
        for given in (frame, {'rgb': frame['rgb']}, {x: frame[x]}):
            found, expected = (one.predict(given, confidence=True) for one in (exported, predictor))
            assert (found.labels == expected.labels).mean() > 0.99
            np.testing.assert_allclose(
                found.confidence.astype(int), expected.confidence.astype(int), atol=2
            )


@pytest.mark.slow
def test_a_file_of_one_pair(checkpoint, tmp_path):
    pytest.importorskip('onnxscript', reason='needs onnxscript')
    onnx_predictor = pytest.importorskip('sartm_model.inference.onnx_predictor')
    file = tmp_path / 'pair.onnx'
    size = ['--height', '64', '--width', '96', '--modality', 'event,rgb']
    assert main(['export', '--checkpoint', str(checkpoint), '--out', str(file), *size]) == 0
    exported = onnx_predictor.OnnxPredictor(file, device='cpu')
    assert exported.modalities == ('rgb', 'event')
    predictor = Predictor(checkpoint, device='cpu')
    frame = scene(10, 'event')[0]
    for given in (frame, {'rgb': frame['rgb']}, {'event': frame['event']}):
        expected = predictor.predict(given).labels
        assert (exported.predict(given).labels == expected).mean() > 0.99
    with pytest.raises(SartmError, match='depth image given, but the network takes rgb and event'):
        exported.predict({'depth': scene(10, 'depth')[0]['depth']})


@pytest.mark.slow
def test_one_network_learns_both_pairs(sources, tmp_path):
    """Random colours show nothing of the box: it is found in X, and not without X."""
    predictor = Predictor(train(sources, tmp_path, steps=60), device='cpu')
    for x in NETWORK[1:]:
        ious = {'both': [], 'rgb': []}
        for seed in (20, 21, 22):
            frame, labels = scene(seed, x)
            for given, found in ious.items():
                chosen = frame if given == 'both' else {'rgb': frame['rgb']}
                box = predictor.predict(chosen).labels == 1
                found.append((box & (labels == 1)).sum() / (box | (labels == 1)).sum())
        assert np.mean(ious['both']) > 0.6
        assert np.mean(ious['rgb']) < 0.4
