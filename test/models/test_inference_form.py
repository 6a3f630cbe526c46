"""The network that `checkpoint.build` makes for inference against the one that was trained."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from sartm_model.config import ModelConfig
from sartm_model.labels import MFNET
from sartm_model.models.checkpoint import Checkpoint, build
from sartm_model.models.layers.fusion import CrossModalFusion
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.auxiliary_head import AuxiliaryHead, InferenceAuxiliaryHead
from sartm_model.models.sartm.encoder import Pyramid
from sartm_model.models.sartm.inference_fusion import InferenceFusion
from sartm_model.models.sartm.inference_mask_decoder import InferenceMaskDecoder
from sartm_model.models.sartm.mask_decoder import ClassMaskDecoder

# float32 sums of a few hundred terms, taken in another order.
TOLERANCE = {'rtol': 1e-4, 'atol': 1e-5}


@pytest.fixture(scope='module', params=['nano', 'lite', 'tiny'])
def forms(request):
    """A network whose weights are all random, its inference form, and that for a GPU."""
    torch.manual_seed(2)
    model = Sartm(ModelConfig(size=request.param), len(MFNET)).eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if 'lora_B' in name or name.endswith(('bias', 'running_mean')):
                value.normal_(std=0.1)
            elif name.endswith(('norm.weight', 'running_var', 'mix.4.weight')):
                value.uniform_(0.5, 2.0)
    trained = Checkpoint(Path('random'), model.config, MFNET, {}, model.state_dict())
    return model, build(trained), build(trained, for_gpu=True)


@torch.no_grad()
@pytest.mark.parametrize('given', [('rgb', 'thermal'), ('rgb',), ('thermal',)])
@pytest.mark.parametrize('size', [(64, 96), (65, 33), (96, 160), (230, 190)])
def test_the_inference_form_gives_the_logits_of_the_trained_form(forms, size, given):
    trained, *optimized = forms
    generator = torch.Generator().manual_seed(1)
    shapes = {'rgb': (1, 3, *size), 'thermal': (1, 1, *size)}
    images = {name: torch.randn(shapes[name], generator=generator) for name in given}
    expected = trained(images)[:2]
    for form in optimized:
        for ours, theirs in zip(form(images)[:2], expected, strict=True):
            torch.testing.assert_close(ours, theirs, **TOLERANCE)


@pytest.mark.parametrize('forms', ['lite'], indirect=True)
def test_depthwise_kernels_for_a_gpu_have_the_sizes_of_training(forms):
    trained, optimized, for_gpu = (
        {conv.kernel_size[0] for conv in form.modules() if getattr(conv, 'groups', 1) > 32}
        for form in forms
    )
    assert trained == for_gpu == {3, 5}
    assert optimized == {3, 4, 5, 6}


def test_the_inference_form_has_the_gradient_of_the_trained_form_by_its_input(forms):
    gradients = []
    for form in forms:
        torch.manual_seed(1)
        thermal = torch.randn(1, 1, 64, 96, requires_grad=True)
        heads = form({'rgb': torch.randn(1, 3, 64, 96), 'thermal': thermal}).logits
        sum(logits.square().mean() for logits in heads.values()).backward()
        gradients.append(thermal.grad)
    expected, *others = gradients
    for gradient in others:
        largest = float(expected.abs().max())
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-3 * largest)


@torch.no_grad()
@pytest.mark.parametrize('num_classes', [1, 9, 40])
@pytest.mark.parametrize('grid', [(1, 1), (2, 3), (5, 4)])
def test_head_2_rearranged_gives_the_same_logits_up_to_the_border(num_classes, grid):
    height, width = grid
    trained = AuxiliaryHead(32, num_classes).double()
    optimized = InferenceAuxiliaryHead(trained).double()
    fused = Pyramid(
        torch.randn(2, 32, height, width, dtype=torch.float64),
        torch.randn(2, 8, 2 * height, 2 * width, dtype=torch.float64),
        torch.randn(2, 4, 4 * height, 4 * width, dtype=torch.float64),
    )
    # The products of the weights were rounded to float32 once.
    torch.testing.assert_close(optimized(fused), trained(fused), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_head_2_as_exported_gives_the_same_logits():
    trained = AuxiliaryHead(32, 9)
    fused = Pyramid(torch.randn(1, 32, 2, 3), torch.randn(1, 8, 4, 6), torch.randn(1, 4, 8, 12))
    exported = torch.export.export(InferenceAuxiliaryHead(trained), (fused,)).module()
    torch.testing.assert_close(exported(fused), trained(fused), **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize('heads', [1, 4])
@pytest.mark.parametrize('grid', [(2, 2), (6, 10)])
def test_the_fusion_rearranged_gives_the_same_map(heads, grid):
    trained = CrossModalFusion(16, heads).double().eval()
    for value in trained.parameters():
        value.add_(0.3 * torch.randn_like(value))
    for name, value in trained.named_buffers():
        if name.endswith(('mean', 'var')):
            value.uniform_(0.5, 2.0)
    optimized = InferenceFusion(trained).double()
    first, second = (torch.randn(3, 16, *grid, dtype=torch.float64) for _ in range(2))
    first = first.contiguous(memory_format=torch.channels_last)
    expected = trained(first, second)
    torch.testing.assert_close(optimized(first, second), expected, rtol=1e-4, atol=1e-5)
    assert optimized(first, second).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.parametrize('level', range(3))
def test_sums_over_all_pixels_may_exceed_half_precision(level):
    torch.manual_seed(3)
    trained = Sartm(ModelConfig(size='nano'), len(MFNET)).eval()
    maps = [8 * torch.randn(1, (96, 24, 12)[level], 96, 128) for _ in range(2)]
    queries = trained.fusions[level].fusion.proj_in_first(maps[0].flatten(2).mT).relu()
    assert (queries**2).sum(dim=1).max() > torch.finfo(torch.float16).max
    expected = trained.fusions[level](*maps)
    trained.optimize_for_inference()
    in_half = trained.to_precision(torch.float16).fusions[level](*(x.half() for x in maps))
    torch.testing.assert_close(in_half.float(), expected, rtol=0, atol=0.02)


@torch.no_grad()
def test_what_needs_float32_keeps_all_of_it_in_half_precision():
    model = Sartm(ModelConfig(size='nano'), len(MFNET)).eval()
    model.optimize_for_inference()
    of_position, of_context = (
        {name: value.clone() for name, value in module.state_dict().items()}
        for module in (model.mask_decoder.position, model.fusions[0].context)
    )
    model.to_precision(torch.float16)
    assert model.fusions[0].proj_in.dtype == torch.float16
    for before, module in (
        (of_position, model.mask_decoder.position),
        (of_context, model.fusions[0].context),
    ):
        assert before
        for name, value in module.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize('num_classes', [1, 9, 40])
def test_head_1_rearranged_gives_the_same_logits_for_grids_in_turn(num_classes):
    torch.manual_seed(num_classes)
    trained = ClassMaskDecoder(32, num_classes, 64).eval()
    for value in trained.parameters():
        value.add_(0.1 * torch.randn_like(value))
    optimized = InferenceMaskDecoder(copy.deepcopy(trained))
    for height, width in ((2, 2), (6, 4), (2, 10), (6, 4)):
        fused = Pyramid(
            torch.randn(2, 32, height, width),
            torch.randn(2, 8, 2 * height, 2 * width),
            torch.randn(2, 4, 4 * height, 4 * width),
        )
        torch.testing.assert_close(optimized(fused), trained(fused), **TOLERANCE)
