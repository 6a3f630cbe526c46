"""MA-CLIP's image tower and adapters, and the network SegRGB-X with it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from small_clip import register

from sartm_model.config import ClipTowerConfig, ModelConfig, model_config_from_dict, to_dict
from sartm_model.errors import SartmError
from sartm_model.models.segrgbx import Segrgbx
from sartm_model.models.segrgbx.ma_clip import (
    MaClip,
    SplitAttention,
    build_tower,
    split_attentions,
    to_clip,
)
from sartm_model.models.segrgbx.ma_clip_adapters import (
    adapters_of,
    add_adapters,
    merge,
    read_adapters,
    write_adapters,
)
from sartm_model.utils.torchvision_patch import patch_torchvision_ops

patch_torchvision_ops()
pytest.importorskip('open_clip', reason='needs open_clip')
pytest.importorskip('transformers', reason='needs transformers')

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
TOWER = ClipTowerConfig('small-test', True, MEAN, STD, width=24)
MODALITIES = ('rgb', 'depth', 'thermal', 'event_voxel5')
CHANNELS = dict(zip(MODALITIES, (3, 1, 1, 5), strict=True))


@pytest.fixture(scope='module', autouse=True)
def small_clip(tmp_path_factory):
    register(tmp_path_factory.mktemp('clip'))


def tower(seed=0):
    torch.manual_seed(seed)
    built = build_tower(TOWER).eval()
    for weight in built.parameters():
        if weight.ndim == 1:  # else all biases are 0
            weight.data.normal_(std=0.2)
    return built


def randomise(adapted):
    """Adapters begin as 0; give them an effect."""
    for name, weight in adapted.named_parameters():
        if '.lora_' in name:
            weight.data.normal_(std=0.2)


def images(*names, batch=2, size=(64, 96), seed=0):
    generator = torch.Generator().manual_seed(seed)
    every = {n: torch.randn(batch, c, *size, generator=generator) for n, c in CHANNELS.items()}
    return {name: every[name] for name in names}


# The images of the tower -------------------------------------------------------------------------


def test_an_rgb_image_gets_the_statistics_of_clip():
    counts = torch.randint(0, 256, (2, 3, 32, 32)).float()
    imagenet = [
        torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    ]
    normalised = (counts / 255 - imagenet[0]) / imagenet[1]
    found = to_clip(normalised, TOWER, (32, 32))
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    torch.testing.assert_close(found, (counts / 255 - mean) / std, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('channels', [1, 5])
def test_another_number_of_channels_is_their_mean_three_times(channels):
    image = torch.randn(2, channels, 40, 64)
    grey = sum(image[:, number] for number in range(channels)) / channels
    expected = to_clip(torch.stack([grey] * 3, dim=1), TOWER, (32, 32))
    torch.testing.assert_close(to_clip(image, TOWER, (32, 32)), expected)


def test_a_large_image_is_averaged_and_not_sampled():
    """A checkerboard of single pixels becomes grey."""
    board = torch.ones(1, 1, 160, 160)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = -1
    grey = to_clip(torch.zeros(1, 1, 32, 32), TOWER, (32, 32))
    torch.testing.assert_close(to_clip(board, TOWER, (32, 32)), grey, atol=0.02, rtol=0)


@torch.no_grad()
def test_embeddings_are_those_of_open_clip_of_length_one():
    ma_clip = MaClip(TOWER).eval()
    ma_clip.tower.load_state_dict(tower().state_dict())
    given = images('rgb', 'event_voxel5')
    for name, found in ma_clip(given).items():
        expected = tower()(to_clip(given[name], TOWER, (32, 32)))
        torch.testing.assert_close(found, expected / expected.square().sum(1, keepdim=True).sqrt())


def test_another_gelu_is_another_embedding():
    exact = build_tower(ClipTowerConfig('small-test', False, MEAN, STD, width=24)).eval()
    exact.load_state_dict(tower().state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert (exact(x) - tower()(x)).abs().max() > 1e-4


# Adapters ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_tower_is_that_of_open_clip():
    import open_clip

    visual = open_clip.create_model('small-test', force_quick_gelu=True).visual.eval()
    x = torch.randn(2, 3, 32, 32)
    expected = visual(x)
    built = build_tower(TOWER).eval()
    split_attentions(visual)
    built.load_state_dict(visual.state_dict())
    torch.testing.assert_close(built(x), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_split_attention_is_that_of_torch():
    torch.manual_seed(0)
    fused = torch.nn.MultiheadAttention(12, 3, batch_first=True).eval()
    fused.in_proj_bias.normal_()
    fused.out_proj.bias.normal_()
    x = torch.randn(2, 5, 12)
    found, _ = SplitAttention(fused)(x, x, x)
    torch.testing.assert_close(found, fused(x, x, x)[0], atol=1e-5, rtol=1e-5)


def test_training_changes_the_adapters_alone():
    base = tower()
    adapted = copy.deepcopy(base)
    add_adapters(adapted, rank=2)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(adapted(x), base(x))  # as they begin
    before = {name: weight.clone() for name, weight in adapted.named_parameters()}
    optimizer = torch.optim.AdamW(adapted.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        adapted(x).square().mean().backward()
        optimizer.step()
    for name, weight in adapted.named_parameters():
        assert torch.equal(weight, before[name]) != ('.lora_' in name), name
    names = {f'transformer.resblocks.{block}.attn.{part}' for block in (0, 1) for part in 'qv'}
    assert {name.partition('.lora_')[0] for name in adapters_of(adapted)} == names


@torch.no_grad()
def test_merged_adapters_give_what_those_of_peft_give(tmp_path):
    base = tower()
    adapted = copy.deepcopy(base)
    add_adapters(adapted, rank=3)
    randomise(adapted)
    write_adapters(tmp_path / 'a.safetensors', adapters_of(adapted), {'model': 'small-test'})
    adapters, card = read_adapters(tmp_path / 'a.safetensors')
    assert card == {'model': 'small-test'}
    merged = copy.deepcopy(base)
    merge(merged, adapters)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(merged(x), adapted(x), atol=1e-5, rtol=1e-4)
    assert (merged(x) - base(x)).abs().max() > 1e-2


def test_adapters_that_do_not_fit_are_refused(tmp_path):
    adapted = tower()
    add_adapters(adapted, rank=3)
    adapters = adapters_of(adapted)
    with pytest.raises(SartmError, match='for 2 layers, the tower has 4'):
        merge(tower(), {key: adapters[key] for key in adapters if 'resblocks.0' in key})
    wide = {key: torch.zeros(5, 5) for key in adapters}
    with pytest.raises(SartmError, match='do not fit the image tower'):
        merge(tower(), wide)
    with pytest.raises(SartmError, match=r'no adapters of MA-CLIP .* stage=ma_clip'):
        read_adapters(tmp_path / 'none.safetensors')
    save_file(adapters, tmp_path / 'other.safetensors')
    with pytest.raises(SartmError, match='has format None instead of'):
        read_adapters(tmp_path / 'other.safetensors')
    (tmp_path / 'damaged.safetensors').write_bytes(b'no weights')
    with pytest.raises(SartmError, match='cannot be read'):
        read_adapters(tmp_path / 'damaged.safetensors')


def test_a_checkpoint_cannot_order_a_download(monkeypatch):
    """open_clip takes such names for models on a hub, or in a folder."""
    import open_clip

    monkeypatch.setattr(open_clip, 'get_model_config', lambda name: pytest.fail(name))
    for name in ('hf-hub:somebody/model', 'local-dir:/tmp'):
        with pytest.raises(SartmError, match='open_clip has no model'):
            MaClip(ClipTowerConfig(name, True, MEAN, STD, 24, 'image'))


def test_a_tower_without_attentions_is_refused():
    with pytest.raises(SartmError, match='a Linear without attentions to adapt; expected that of'):
        split_attentions(torch.nn.Linear(2, 2))
    with pytest.raises(SartmError, match="open_clip has no model 'no-model'"):
        build_tower(ClipTowerConfig('no-model', False, MEAN, STD, width=24))


# The network -------------------------------------------------------------------------------------


def model(context='image', without=(), seed=0) -> Segrgbx:
    clip = ClipTowerConfig('small-test', True, MEAN, STD, 24, context) if context else None
    config = ModelConfig(
        name='segrgbx', size='b0', modalities=MODALITIES, without=without, ma_clip=clip
    )
    torch.manual_seed(seed)
    network = Segrgbx(config, 9).eval()
    if network.dsrm is not None:
        network.dsrm.modulation.weight.data.normal_(std=0.1)
    if network.ma_clip is not None:
        network.ma_clip.tower.load_state_dict(tower().state_dict())
    if hasattr(network, 'mean_embeddings'):
        network.mean_embeddings.copy_(F.normalize(torch.randn(4, 24), dim=1))
    return network


def contexts(network, given, drop_mask=None, **known):
    """The context that each part gets: that of each sample of RGB, then that of X."""
    found = []
    parts = [*network.modality_embeddings, *([network.dsrm] if network.dsrm else [])]
    hooks = [
        part.register_forward_hook(lambda _, args, __: found.append(args[1])) for part in parts
    ]
    with torch.no_grad():
        network(given, drop_mask, **known)
    for hook in hooks:
        hook.remove()
    assert len(found) == len(parts)
    assert all(torch.equal(one, found[0]) for one in found)
    return found[0]


def test_the_context_is_the_embedding_of_each_image():
    network, given = model(), images('rgb', 'depth')
    found = contexts(network, given)
    for stream, name in enumerate(given):
        with torch.no_grad():
            expected = tower()(to_clip(given[name], TOWER, (32, 32))).double().numpy()
        expected *= np.sqrt(24) / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found[2 * stream : 2 * stream + 2], expected, atol=1e-4)


def test_of_several_x_it_is_the_direction_of_their_mean():
    network, given = model(), images('rgb', 'depth', 'event_voxel5')
    each = {name: contexts(network, {name: given[name]}) for name in given}
    dropped = torch.zeros(2, 4, dtype=torch.bool)
    dropped[1, MODALITIES.index('depth')] = True
    found = contexts(network, given, dropped)
    torch.testing.assert_close(found[:2], each['rgb'], atol=1e-4, rtol=1e-4)
    total = each['depth'][0] + each['event_voxel5'][0]
    expected = total / total.norm() * 24**0.5
    torch.testing.assert_close(found[2], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[3], each['event_voxel5'][1], atol=1e-4, rtol=1e-4)


def test_known_embeddings_are_used_and_the_tower_is_not():
    network, given = model(), images('rgb', 'thermal')
    with torch.no_grad():
        known = network.ma_clip(given)
        expected = network(given).logits['mlp']
        network.ma_clip.tower.forward = None
        found = network(given, embeddings=known).logits['mlp']
    torch.testing.assert_close(found, expected)


def test_the_mean_context_is_of_the_modality_and_needs_no_tower():
    network = model('mean')
    assert network.ma_clip is None
    found = contexts(network, images('rgb', 'thermal'))
    expected = np.sqrt(24) * network.mean_embeddings[[0, 0, 2, 2]]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = model().state_dict()
    assert weights.keys() - network.state_dict().keys() == {
        key for key in weights if key.startswith('ma_clip.tower.')
    }


def test_without_ma_clip_the_weights_are_those_of_before():
    without = model(without=('ma_clip',)).state_dict()
    assert without.keys() == model(context=None).state_dict().keys()
    assert without['context'].shape == (4, 512)


def test_where_nothing_uses_it_there_is_no_ma_clip():
    network = model(without=('modality_embedding', 'dsrm'))
    names = network.state_dict().keys()
    assert not any(name.startswith(('ma_clip', 'mean_embeddings', 'context')) for name in names)
    with torch.no_grad():
        network(images('rgb', 'depth'))


def test_its_tower_is_frozen_and_gets_no_gradient():
    network = model().train()
    assert not any(weight.requires_grad for weight in network.ma_clip.parameters())
    network(images('rgb', 'depth')).logits['mlp'].square().mean().backward()
    assert all(weight.grad is None for weight in network.ma_clip.parameters())
    assert network.modality_embeddings[0].control[0].weight.grad.abs().sum() > 0


def test_half_precision():
    network, given = model(), images('rgb', 'depth', batch=1)
    with torch.no_grad():
        expected = network(given).logits['mlp']
        network.to_precision(torch.bfloat16)
        found = network({name: image.bfloat16() for name, image in given.items()}).logits['mlp']
    assert (found.float() - expected).abs().mean() < 0.1 * expected.std()


def test_the_configuration_in_a_checkpoint():
    config = model().config
    assert model_config_from_dict(to_dict(config)) == config
    old = to_dict(model(context=None).config)
    del old['ma_clip']
    assert model_config_from_dict(old).ma_clip is None
