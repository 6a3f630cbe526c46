"""The network against `sam2` itself and against dense arithmetic, part by part."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.encoder import build_image_encoder
from sartm_model.models.sartm.lora import SplitQkv, merge_state
from sartm_model.models.sartm.sam2_weights import load_sam2

# float32 sums of a few hundred terms, taken in another order.
TOLERANCE = {'rtol': 1e-4, 'atol': 1e-5}


def nano(num_classes: int = 5, seed: int = 0, **config: object) -> Sartm:
    torch.manual_seed(seed)
    return Sartm(ModelConfig(**config), num_classes).eval()  # type: ignore[arg-type]


def randomize_adapters(model: Sartm) -> None:
    """Set LoRA's B matrices, which start at zero, to random values."""
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.05)


def pair(height: int = 64, width: int = 96, batch: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    rgb = torch.randn(batch, 3, height, width, generator=generator)
    return {'rgb': rgb, 'thermal': torch.randn(batch, 1, height, width, generator=generator)}


@pytest.fixture(scope='module')
def tiny(sam2_file):
    """Our network of the size of `sam2_tiny`, with its weights."""
    model = Sartm(ModelConfig(size='tiny'), 9).eval()
    load_sam2(model, sam2_file)
    return model


@torch.no_grad()
@pytest.mark.parametrize('size', [(96, 160), (448, 448), (64, 288)])
def test_rgb_features_equal_sam2_forward_image_while_lora_is_zero(sam2_tiny, tiny, size):
    """Windows of 14 and 7 tokens tile the maps of 448x448, but not those of the other sizes."""
    rgb = pair(*size)['rgb']
    fine, middle, coarse = sam2_tiny.forward_image(rgb)['backbone_fpn']
    pyramid = tiny.encoder({'rgb': rgb})['rgb']
    torch.testing.assert_close(pyramid.sfm, coarse, **TOLERANCE)
    torch.testing.assert_close(pyramid.ifp, middle, **TOLERANCE)
    torch.testing.assert_close(pyramid.ffp, fine, **TOLERANCE)


@torch.no_grad()
def test_mask_decoder_equals_sam2s_on_the_same_maps(sam2_tiny, tiny, sam2_file):
    """Class k starts from SAM2's mask token k mod 4, so four of our logits are SAM2's masks."""
    fused = tiny.encoder({'rgb': pair(64, 64)['rgb']})['rgb']
    decoder, prompts = sam2_tiny.sam_mask_decoder, sam2_tiny.sam_prompt_encoder
    four = Sartm(ModelConfig(size='tiny'), 4).eval()
    load_sam2(four, sam2_file)
    decoder.pred_obj_scores = False
    masks, *_ = decoder.predict_masks(
        image_embeddings=fused.sfm,
        image_pe=prompts.pe_layer((4, 4))[None],
        sparse_prompt_embeddings=torch.zeros(1, 0, 256),
        dense_prompt_embeddings=prompts.no_mask_embed.weight[:, :, None, None],
        repeat_image=False,
        high_res_features=[fused.ffp, fused.ifp],
    )
    torch.testing.assert_close(four.mask_decoder(fused), masks, **TOLERANCE)


@torch.no_grad()
def test_lora_at_a_stage_transition_is_dense_on_all_of_q_and_v():
    model = nano()
    randomize_adapters(model)
    block = next(b for b in model.encoder.trunk.blocks if b.attn.dim_out != b.attn.dim)
    qkv, d_in, d_out = block.attn.qkv, block.attn.dim, block.attn.dim_out
    assert d_out == 2 * d_in
    x = torch.randn(2, 3, 4, d_in)  # one row of the batch a modality
    out = qkv(x, ('rgb', 'thermal'))
    for index, name in enumerate(('rgb', 'thermal')):
        for part, rows in (('q', slice(0, d_out)), ('v', slice(2 * d_out, 3 * d_out))):
            layer = getattr(qkv, part)
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            dense = layer.base_layer.weight.double() + b.double() @ a.double()
            wanted = x[index].double() @ dense.T + layer.base_layer.bias.double()
            torch.testing.assert_close(out[index][..., rows].double(), wanted, **TOLERANCE)
            assert ((b @ a).abs().sum(dim=1) > 0).all(), 'an output row was left without LoRA'
        keys = x[index] @ qkv.k.weight.T + qkv.k.bias
        torch.testing.assert_close(out[index][..., d_out : 2 * d_out], keys, **TOLERANCE)


@torch.no_grad()
def test_adapters_match_pefts_own_routing():
    model = nano()
    randomize_adapters(model)
    qkv = model.encoder.trunk.blocks[0].attn.qkv
    assert isinstance(qkv, SplitQkv)
    x = torch.randn(4, 5, 24)
    routed = qkv.q(x, adapter_names=['rgb', 'rgb', 'thermal', 'thermal'])
    torch.testing.assert_close(qkv(x, ('rgb', 'thermal'))[..., :24], routed, **TOLERANCE)


def test_one_pass_trains_both_modalities_adapters():
    model = nano().train()
    # One pair lacks RGB and one thermal, so that the stand-ins are trained too.
    output = model(pair(batch=3), torch.tensor([[True, False], [False, True], [False, False]]))
    sum(logits.square().mean() for logits in output.logits.values()).backward()
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@torch.no_grad()
@pytest.mark.parametrize('given', [('rgb', 'thermal'), ('rgb',), ('thermal',)])
def test_merged_equals_unmerged(given):
    model = nano()
    randomize_adapters(model)
    merged = Sartm(model.config, model.num_classes, merged=True).eval()
    merged.load_state_dict(merge_state(model.state_dict(), model.config.modalities))
    images = {name: pair()[name] for name in given}
    for folded in (False, True):
        if folded:
            before = sum(weight.numel() for weight in merged.parameters())
            merged.encoder.optimize_for_inference()
            assert sum(weight.numel() for weight in merged.parameters()) < before
        torch.testing.assert_close(merged(images).logits, model(images).logits, **TOLERANCE)


@torch.no_grad()
def test_thermal_and_rgb_both_move_both_heads_and_calls_agree():
    model = nano()
    images = pair()
    first, again = model(images), model(images)
    other_thermal, other_rgb = (
        model({**images, name: -images[name]}) for name in ('thermal', 'rgb')
    )
    for head in ('mask', 'auxiliary'):
        assert torch.equal(first.logits[head], again.logits[head])
        for other in (other_thermal, other_rgb):
            assert (first.logits[head] - other.logits[head]).abs().max() > 1e-3


@torch.no_grad()
def test_modalities_have_adapters_of_their_own():
    """The same image has other features in each modality once the adapters differ."""
    model = nano()
    image = pair()['rgb']
    same = model.encoder({'rgb': image, 'thermal': image})
    torch.testing.assert_close(same['rgb'].sfm, same['thermal'].sfm, **TOLERANCE)
    randomize_adapters(model)
    differ = model.encoder({'rgb': image, 'thermal': image})
    assert (differ['rgb'].sfm - differ['thermal'].sfm).abs().max() > 1e-3
    alone = model.encoder({'thermal': image})
    torch.testing.assert_close(alone['thermal'].sfm, differ['thermal'].sfm, **TOLERANCE)


@pytest.mark.parametrize('merged', [False, True])
def test_threads_can_encode_other_modalities_at_once(merged):
    model = nano()
    randomize_adapters(model)
    if merged:
        state = merge_state(model.state_dict(), model.config.modalities)
        model = Sartm(model.config, model.num_classes, merged=True).eval()
        model.load_state_dict(state)
    rgb, image = pair()['rgb'], pair(96, 64)['rgb']
    inputs = [{'rgb': rgb, 'thermal': -rgb}, {'rgb': image}, {'thermal': image}]

    @torch.no_grad()
    def encode(images):
        return model.encoder(images)

    expected = [encode(images) for images in inputs]
    # Each waits for the others after the first layer, so that all are in the blocks at once.
    barrier = threading.Barrier(len(inputs), timeout=60)

    def wait(*_):
        barrier.wait()

    model.encoder.trunk.patch_embed.register_forward_hook(wait)
    with ThreadPoolExecutor(len(inputs)) as pool:
        found = list(pool.map(encode, inputs))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], **TOLERANCE)


@torch.no_grad()
@torch.no_grad()
def test_padding_repeats_the_last_row_and_column():
    model = nano()
    images = pair(70, 101)
    by_26_and_27 = ((0, 0), (0, 0), (0, 26), (0, 27))
    padded = {
        name: torch.from_numpy(np.pad(image.numpy(), by_26_and_27, mode='edge'))
        for name, image in images.items()
    }
    found, expected = model(images).logits, model(padded).logits
    for head, logits in found.items():
        torch.testing.assert_close(logits, expected[head][..., :70, :101], **TOLERANCE)


@pytest.mark.parametrize('size', [(480, 640), (720, 1280), (600, 800), (65, 33)])
def test_any_size_gives_logits_of_that_size(size):
    for logits in nano(num_classes=3)(pair(*size)).logits.values():
        assert logits.shape == (1, 3, *size)
        assert torch.isfinite(logits).all()


def sampled_at(logits, places_h, places_w):
    """Sample `[B, K, h, w]` bilinearly at positions in its pixels; borders are repeated."""
    height, width = logits.shape[-2:]
    y, x = (2 * places_h + 1) / height - 1, (2 * places_w + 1) / width - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1)
    grid = grid.expand(len(logits), *grid.shape[-3:])
    return F.grid_sample(logits, grid, padding_mode='border', align_corners=False)


@torch.no_grad()
@pytest.mark.parametrize('size', [(128, 192), (97, 131), (150, 96)])
def test_a_network_that_sees_less_gives_logits_of_the_images_size(size):
    """Pixel (y, x) of the output is sampled at a quarter of its position in the smaller input."""
    model = nano(input_scale=0.5, prediction='mask')
    images = pair(*size)
    small = tuple(round(length / 2) for length in size)
    padding = (0, -small[1] % 32, 0, -small[0] % 32)
    padded = {
        name: F.pad(F.interpolate(x, size=small, mode='bilinear'), padding, mode='replicate')
        for name, x in images.items()
    }
    places = [(torch.arange(n) + 0.5) * s / n / 4 - 0.5 for n, s in zip(size, small, strict=True)]
    logits = model.mask_decoder(model.encode(padded, None))  # at a quarter of the padded input
    expected = sampled_at(logits, *places).softmax(dim=1)
    found = model.segment(images)
    assert found.shape == (1, 5, *size)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('num_classes', [1, 2, 15])
def test_any_number_of_classes(num_classes):
    probabilities = nano(num_classes).segment(pair())
    assert probabilities.shape[1] == num_classes
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 64, 96))


@torch.no_grad()
def test_dropped_modality_counts_as_missing():
    """Dropping a modality of a sample gives the same logits as omitting its image."""
    model = nano()
    rgb, thermal = pair(batch=3).values()
    drop_mask = torch.tensor([[False, True], [True, False], [False, False]])
    mixed = model({'rgb': rgb, 'thermal': thermal}, drop_mask).logits['mask']
    rest = [
        {'rgb': rgb[:1]},
        {'thermal': thermal[1:2]},
        {'thermal': thermal[2:], 'rgb': rgb[2:]},  # the order of the images does not matter
    ]
    for found, images in zip(mixed.split(1), rest, strict=True):
        torch.testing.assert_close(found, model(images).logits['mask'], **TOLERANCE)


def test_frozen_parts_of_a_sam2_size_are_sam2s(tiny):
    frozen = {name for name, p in tiny.named_parameters() if not p.requires_grad}
    assert 'encoder.trunk.patch_embed.proj.weight' in frozen
    assert 'mask_decoder.masks.transformer.layers.0.self_attn.q_proj.weight' in frozen
    assert not any('lora_' in name or name.startswith('fusions.') for name in frozen)


def test_all_of_nano_is_trained_but_the_mask_quality():
    frozen = {name for name, p in nano().named_parameters() if not p.requires_grad}
    assert frozen
    assert all('.iou_prediction_head.' in name for name in frozen)


@pytest.mark.parametrize(
    ('size', 'millions'), [('tiny', 27.2), ('small', 34.3), ('base_plus', 69.1), ('large', 212.7)]
)
def test_encoder_sizes_are_sam2s(size, millions):
    parameters = sum(p.numel() for p in build_image_encoder(size).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_no_image_two_sizes_or_a_foreign_modality_is_an_error():
    model = nano()
    images = pair()
    with pytest.raises(SartmError, match='at least one modality'):
        model({})
    with pytest.raises(SartmError, match='differ in size'):
        model({**images, 'thermal': images['thermal'][..., :-1]})
    with pytest.raises(SartmError, match='no modality depth; expected rgb or thermal'):
        model({'rgb': images['rgb'], 'depth': images['thermal']})
    with pytest.raises(SartmError, match='input_scale'):
        ModelConfig(input_scale=0)
    with pytest.raises(SartmError, match=r"\['thermal', 'rgb'\]; expected rgb first"):
        ModelConfig(modalities=('thermal', 'rgb'))


def test_thermal_scale_is_percentiles_with_a_guard_for_flat_frames():
    ramp = torch.arange(0, 64 * 64, dtype=torch.float32).reshape(64, 64).to(torch.uint16)
    scale = MODALITIES['thermal'].scale
    scaled = scale(ramp)
    sampled = ramp.int().numpy()[::4, ::4].ravel()
    assert (scaled[::4, ::4] < 0).float().mean() == pytest.approx(0.01, abs=0.005)
    assert (scaled[::4, ::4] > 1).float().mean() == pytest.approx(0.01, abs=0.005)
    assert len(sampled) == 256
    noise = torch.randint(3000, 3004, (64, 64)).to(torch.uint16)
    flat = scale(noise)
    assert (flat - 0.5).abs().max() < 0.05, 'sensor noise of a flat frame was stretched'
    fixed = scale(
        torch.tensor([[100, 150, 200]], dtype=torch.uint8).repeat(2, 1),
        ThermalSettings('fixed', 100, 200).fixed_range,
    )
    torch.testing.assert_close(fixed[0], torch.tensor([0.0, 0.5, 1.0]))
