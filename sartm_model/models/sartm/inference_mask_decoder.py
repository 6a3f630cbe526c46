"""Head 1 as inference computes it: from products of the trained weights, with few operations.

A `ClassMaskDecoder` is rearranged without changing what it computes:

- Projections of the same tokens are one product. The position encoding is added before some of
  them; its own projection is added after. For the class tokens that is constant, for the image's
  tokens it depends on the size of the images alone.
- Each step of the two-way transformer is x <- LN(x + W y + b). Here the LayerNorm of the step
  before has added b already, by its own bias, so that x + W y is one product, in place. So every x
  is the trained one and b, its early bias. What else reads x takes it out of its own bias:
  U (x + b) + (c - U b) = U x + c.
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

from sartm_model.models.layers.folding import make_linear
from sartm_model.models.sartm.encoder import Pyramid
from sartm_model.models.sartm.mask_decoder import ClassMaskDecoder
from sartm_model.utils.grid_cache import GridCache


class InferenceMaskDecoder(nn.Module):
    """Computes what a trained `ClassMaskDecoder` computes.

    Args:
        trained: in float32. Its modules are taken over, so it is not to be used any more.
    """

    @torch.no_grad()
    def __init__(self, trained: ClassMaskDecoder) -> None:
        super().__init__()
        masks: Any = trained.masks
        transformer = masks.transformer
        layers: Any = list(transformer.layers)
        final = transformer.final_attn_token_to_image
        up_1, self.norm, _, up_2, _ = masks.output_upscaling
        self.num_heads = transformer.num_heads
        self.position = trained.position
        token_position = torch.cat((masks.iou_token.weight, masks.mask_tokens.weight))  # [K + 1, C]
        no_bias = torch.zeros_like(token_position[0])
        self.layers: Any = nn.ModuleList(
            _Layer(layer, next_layer, final, token_position)
            for layer, next_layer in zip(layers, [*layers[1:], None], strict=True)
        )
        self.final_step = _Step(final.out_proj, transformer.norm_final_attn, no_bias)
        self.final_from_image = _Projections([(final.k_proj, True), (final.v_proj, False)], no_bias)
        self.up_1, self.up_2 = _as_linear(up_1), _as_linear(up_2)
        image_bias = layers[0].cross_attn_image_to_token.out_proj.bias
        self.first_image = _parameter(trained.no_mask_embed + image_bias)  # [1, C]
        tokens = token_position[None]
        tokens = layers[0].norm1(layers[0].self_attn(tokens, tokens, tokens))
        self.first_tokens = _parameter(tokens)  # [1, K + 1, C]
        first: Any = self.layers[0]
        (queries,) = first.queries(tokens, first.queries_addend)
        self.first_queries = _parameter(queries)  # [1, K + 1, C / 2]
        mlps = [mlp.layers for mlp in masks.output_hypernetworks_mlps]
        same_layers = list(zip(*mlps, strict=True))  # of all classes
        self.mlp_weights = nn.ParameterList(
            _parameter(torch.stack([layer.weight.T for layer in layers])) for layers in same_layers
        )  # [K, d_in, d_out] a layer
        self.mlp_biases = nn.ParameterList(
            _parameter(torch.stack([layer.bias[None] for layer in layers]))
            for layers in same_layers
        )  # [K, 1, d_out] a layer
        self._addends = GridCache()
        self.requires_grad_(False)

    def forward(self, fused: Pyramid) -> Tensor:
        """Compute logits `[B, K, H/4, W/4]` from the fused maps."""
        sfm, ifp, ffp = fused
        tokens, image = self._transform(sfm)  # [B, K + 1, C], [B, N, C]
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
        """Run SAM2's two-way transformer on the class tokens and the map's tokens; return both."""
        image = sfm.flatten(2).transpose(1, 2) + self.first_image  # [B, N, C]
        tokens = self.first_tokens.repeat(len(sfm), 1, 1)
        queries = self.first_queries.expand(len(sfm), -1, -1)
        for_next: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            if number > 0:
                tokens = layer.self_step(tokens, self._attend(*for_next))
                (queries,) = layer.queries(tokens, layer.queries_addend)
            keys, values, image_queries = self._project(layer.from_image, image, sfm)
            tokens = layer.cross_step(tokens, self._attend(queries, keys, values))
            tokens = layer.mlp_step(tokens, layer.hidden(tokens).relu_())
            token_keys, token_values, *for_next = layer.from_tokens(
                tokens, layer.from_tokens_addend
            )
            image = layer.image_step(image, self._attend(image_queries, token_keys, token_values))
        (queries,) = for_next
        keys, values = self._project(self.final_from_image, image, sfm)
        return self.final_step(tokens, self._attend(queries, keys, values)), image

    def _project(self, projections: Any, image: Tensor, sfm: Tensor) -> tuple[Tensor, ...]:
        """Return projections of the image's tokens, which have the positions of a map."""
        grid = sfm.shape[-2:]

        def compute() -> Tensor:
            position = self.position(grid).flatten(1).T  # [N, C]
            return projections.addend(position).to(sfm.dtype)

        addend = self._addends.get((projections, *grid, sfm.device, sfm.dtype), compute)
        return projections(image, addend)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from projected queries to projected keys and values, with several heads."""
        heads = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)

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


class _Layer(nn.Module):
    """The steps of a layer of the two-way transformer and the projections that they need.

    Args:
        layer: SAM2's.
        next_layer: SAM2's, None after the last one.
        final: SAM2's attention of the class tokens to the image after all layers.
        token_position: position encoding of the class tokens, `[K + 1, C]`.
    """

    def __init__(self, layer: Any, next_layer: Any, final: Any, token_position: Tensor) -> None:
        super().__init__()
        to_image, to_token = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        hidden, mlp_out = layer.mlp.layers
        if next_layer is None:
            next_attention = final
            for_next = [(final.q_proj, True)]
            next_image_bias = torch.zeros_like(to_token.out_proj.bias)
        else:
            next_attention = next_layer.self_attn
            q, k, v = (getattr(next_attention, f'{name}_proj') for name in 'qkv')
            for_next = [(q, True), (k, True), (v, False)]
            next_image_bias = next_layer.cross_attn_image_to_token.out_proj.bias
        to_image_bias, next_bias = to_image.out_proj.bias, next_attention.out_proj.bias
        self.self_step = _Step(layer.self_attn.out_proj, layer.norm1, to_image_bias)
        self.queries = _Projections([(to_image.q_proj, True)], to_image_bias)
        self.queries_addend = _parameter(self.queries.addend(token_position))
        self.from_image = _Projections(
            [(to_image.k_proj, True), (to_image.v_proj, False), (to_token.q_proj, True)],
            to_token.out_proj.bias,
        )
        self.cross_step = _Step(to_image.out_proj, layer.norm2, mlp_out.bias)
        hidden.bias.copy_(_bias_without(mlp_out.bias, hidden))
        self.hidden = hidden
        self.mlp_step = _Step(mlp_out, layer.norm3, next_bias)
        from_tokens = [(to_token.k_proj, True), (to_token.v_proj, False), *for_next]
        self.from_tokens = _Projections(from_tokens, next_bias)
        self.from_tokens_addend = _parameter(self.from_tokens.addend(token_position))
        self.image_step = _Step(to_token.out_proj, layer.norm4, next_image_bias)


class _Step(nn.Module):
    """A step of the transformer, x <- LN(x + W y + b).

    Args:
        linear: W and b.
        norm: LN, whose bias is changed.
        next_bias: b of the step after this one, the early bias of the result.
    """

    def __init__(self, linear: nn.Linear, norm: nn.LayerNorm, next_bias: Tensor) -> None:
        super().__init__()
        self.weight = _parameter(linear.weight)
        self.norm = norm
        norm.bias.add_(next_bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the result of the step, `[B, N, C]`.

        Args:
            x: `[B, N, C]` with b as its early bias. It is overwritten.
            y: `[B, N, C']`.
        """
        result: Tensor = self.norm(x.baddbmm_(y, self.weight.T.expand(len(x), -1, -1)))
        return result


class _Projections(nn.Module):
    """Several projections of the same tokens as one product.

    Args:
        layers: each projection, and whether the position encoding is added before it.
        early_bias: of the tokens, `[C]`.
    """

    def __init__(self, layers: list[tuple[nn.Linear, bool]], early_bias: Tensor) -> None:
        super().__init__()
        self.widths = [layer.out_features for layer, _ in layers]
        self.weight = _parameter(torch.cat([layer.weight for layer, _ in layers]))
        self.bias = _parameter(torch.cat([_bias_without(early_bias, layer) for layer, _ in layers]))
        of_position = [layer.weight * has_position for layer, has_position in layers]
        self.position_weight = _parameter(torch.cat(of_position))

    def addend(self, position: Tensor) -> Tensor:
        """Return what the position encoding `[N, C]` and the biases add, float32 `[N, C']`."""
        return F.linear(position.float(), self.position_weight.float(), self.bias.float())

    def forward(self, tokens: Tensor, addend: Tensor) -> tuple[Tensor, ...]:
        """Project tokens `[B, N, C]`; the addend is that of their positions."""
        return F.linear(tokens, self.weight).add_(addend).split(self.widths, dim=-1)


def _bias_without(early_bias: Tensor, layer: nn.Linear) -> Tensor:
    """Return the bias with which a layer takes the early bias out of the tokens that it reads."""
    return (layer.bias.double() - layer.weight.double() @ early_bias.double()).float()


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
    return make_linear(conv.weight.permute(2, 3, 1, 0).flatten(0, 2), conv.bias.repeat(4))


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().contiguous(), requires_grad=False)
