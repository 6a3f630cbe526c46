"""Head 1 as inference computes it: from products of the trained weights, with few operations.

A `ClassMaskDecoder` is rearranged without changing what it computes:

- Within a layer of the two-way transformer three projections read the image's tokens: keys and
  values for the class tokens' queries, and queries for the class tokens' keys. They are one
  product. The position encoding is added before two of them; its own projection depends on the size
  of the images alone and is added after.
- The class tokens are the same for all images up to the first cross-attention, so what comes before
  is computed once.
- A transposed convolution of 2x2 with stride 2 is a product that gives each pixel four.
- The MLPs of all classes are one batched product a layer.
- The quality of the masks, which SAM2 predicts too, is not computed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.models.sartm.encoder import Pyramid
from sartm_model.models.sartm.mask_decoder import ClassMaskDecoder
from sartm_model.utils.grid_cache import GridCache


class InferenceMaskDecoder(nn.Module):
    """Computes what a trained `ClassMaskDecoder` computes.

    Args:
        trained: in float32. Its modules are taken over, so it is not to be used any more.
    """

    def __init__(self, trained: ClassMaskDecoder) -> None:
        super().__init__()
        masks: Any = trained.masks
        transformer = masks.transformer
        self.position = trained.position
        self.layers: Any = transformer.layers
        self.final_attention = transformer.final_attn_token_to_image
        self.final_norm = transformer.norm_final_attn
        self.image_projections = nn.ModuleList(
            _ImageProjection(
                [
                    (layer.cross_attn_token_to_image.k_proj, True),
                    (layer.cross_attn_token_to_image.v_proj, False),
                    (layer.cross_attn_image_to_token.q_proj, True),
                ]
            )
            for layer in self.layers
        )
        self.image_projections.append(
            _ImageProjection(
                [(self.final_attention.k_proj, True), (self.final_attention.v_proj, False)]
            )
        )
        with torch.no_grad():
            tokens = torch.cat((masks.iou_token.weight, masks.mask_tokens.weight))[None]
            first = self.layers[0]
            self.tokens = _parameter(tokens)  # [1, K + 1, C]
            self.first_queries = _parameter(first.norm1(first.self_attn(tokens, tokens, tokens)))
        self.no_mask_embed = trained.no_mask_embed
        up_1, self.norm, _, up_2, _ = masks.output_upscaling
        self.up_1, self.up_2 = _as_linear(up_1), _as_linear(up_2)
        mlps = [mlp.layers for mlp in masks.output_hypernetworks_mlps]
        same_layers = list(zip(*mlps, strict=True))  # of all classes
        self.mlp_weights = nn.ParameterList(
            _parameter(torch.stack([layer.weight.T for layer in layers])) for layers in same_layers
        )  # [K, d_in, d_out] a layer
        self.mlp_biases = nn.ParameterList(
            _parameter(torch.stack([layer.bias[None] for layer in layers]))
            for layers in same_layers
        )  # [K, 1, d_out] a layer
        self._positions = GridCache()
        self.requires_grad_(False)

    def forward(self, fused: Pyramid) -> Tensor:
        """Compute logits `[B, K, H/4, W/4]` from the fused maps."""
        sfm, ifp, ffp = fused
        image, tokens = self._transform(sfm)  # [B, N, C], [B, K + 1, C]
        height, width = sfm.shape[-2:]
        upscaled = _to_twice(self.up_1(image), ifp, (height, width))  # [B, 4 N, C / 4]
        upscaled = F.gelu(
            F.layer_norm(
                upscaled, upscaled.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps
            )
        )
        upscaled = F.gelu(_to_twice(self.up_2(upscaled), ffp, (2 * height, 2 * width)))
        weights = self._class_weights(tokens[:, 1:])  # [B, K, C / 8]
        return (weights @ upscaled.mT).unflatten(2, ffp.shape[-2:])

    def _transform(self, sfm: Tensor) -> tuple[Tensor, Tensor]:
        """Run SAM2's two-way transformer on the map and the class tokens."""
        image = sfm.flatten(2).transpose(1, 2) + self.no_mask_embed  # [B, N, C]
        token_pe = self.tokens
        queries = self.first_queries.expand(len(image), -1, -1)
        for number, layer in enumerate(self.layers):
            if number > 0:
                attended = layer.self_attn(q=queries + token_pe, k=queries + token_pe, v=queries)
                queries = layer.norm1(queries + attended)
            keys, values, image_queries = self._project(number, image, sfm)
            to_image, to_token = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            attended = _attend(to_image, to_image.q_proj(queries + token_pe), keys, values)
            queries = layer.norm2(queries + attended)
            queries = layer.norm3(queries + layer.mlp(queries))
            token_keys = to_token.k_proj(queries + token_pe)
            attended = _attend(to_token, image_queries, token_keys, to_token.v_proj(queries))
            image = layer.norm4(image + attended)
        keys, values = self._project(len(self.layers), image, sfm)
        q = self.final_attention.q_proj(queries + token_pe)
        queries = self.final_norm(queries + _attend(self.final_attention, q, keys, values))
        return image, queries

    def _project(self, number: int, image: Tensor, sfm: Tensor) -> tuple[Tensor, ...]:
        """Return the projections of the image's tokens in a layer, each `[B, N, C / 2]`."""
        projection: Any = self.image_projections[number]
        grid = sfm.shape[-2:]

        def compute() -> Tensor:
            position = self.position(grid).flatten(1).T  # [N, C]
            return projection.of_position(position).to(sfm.dtype)

        key = (number, *grid, sfm.device, sfm.dtype)
        of_position = self._positions.get(key, compute)
        return F.linear(image, projection.weight).add_(of_position).chunk(projection.parts, dim=-1)

    def _class_weights(self, tokens: Tensor) -> Tensor:
        """Apply the MLP of each class to its token: `[B, K, C]` -> `[B, K, C / 8]`."""
        x = tokens.transpose(0, 1)  # [K, B, C]
        last = len(self.mlp_weights) - 1
        for number, (weight, bias) in enumerate(
            zip(self.mlp_weights, self.mlp_biases, strict=True)
        ):
            x = torch.baddbmm(bias, x, weight)
            x = x if number == last else x.relu_()
        return x.transpose(0, 1)


class _ImageProjection(nn.Module):
    """Several projections of the image's tokens as one product.

    Args:
        projections: each layer, and whether the position encoding is added before it.
    """

    def __init__(self, projections: list[tuple[nn.Linear, bool]]) -> None:
        super().__init__()
        self.parts = len(projections)
        self.weight = _parameter(torch.cat([layer.weight for layer, _ in projections]))
        self.bias = _parameter(torch.cat([layer.bias for layer, _ in projections]))
        of_position = [layer.weight * has_position for layer, has_position in projections]
        self.position_weight = _parameter(torch.cat(of_position))

    def of_position(self, position: Tensor) -> Tensor:
        """Return what the position encoding `[N, C]` and the biases add, float32."""
        return F.linear(position.float(), self.position_weight.float(), self.bias.float())


def _attend(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Run SAM2's attention from its projected queries, keys and values on."""
    heads = (x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(*heads)
    return attention.out_proj(out.transpose(1, 2).flatten(2))


def _to_twice(x: Tensor, skip: Tensor, size: tuple[int, int]) -> Tensor:
    """Place the four pixels of each position of a map and add a map of twice the size.

    Args:
        x: `[B, h w, 4 C]`, upper left, upper right, lower left and lower right pixel.
        skip: `[B, C, 2 h, 2 w]`.
        size: h and w.

    Returns:
        `[B, 4 h w, C]`.
    """
    pixels = x.unflatten(2, (2, 2, -1)).unflatten(1, size).transpose(2, 3)  # [B, h, 2, w, 2, C]
    placed = skip.permute(0, 2, 3, 1).unflatten(2, (size[1], 2)).unflatten(1, (size[0], 2))
    return (placed + pixels).flatten(1, 4)


def _as_linear(conv: Any) -> nn.Linear:
    """Return a transposed convolution of 2x2 with stride 2 as a product; see `_to_twice`."""
    d_in, d_out = conv.weight.shape[:2]
    layer = nn.Linear(d_in, 4 * d_out)
    with torch.no_grad():
        layer.weight.copy_(conv.weight.permute(2, 3, 1, 0).flatten(0, 2))
        layer.bias.copy_(conv.bias.repeat(4))
    return layer


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().contiguous(), requires_grad=False)
