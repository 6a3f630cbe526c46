"""Runs SAM2's Hiera with few copies, and with the modalities passed to every block.

SAM2's blocks take maps `[N, h, w, C]`, cut them into windows for the attention and put them
together again. Everything but that attention and the pooling treats each token alone. So here a
map is a list of tokens `[N, T, C]`, in an order that suits several blocks in succession:

- Where windows tile the map, tokens are ordered by window. All blocks of a stage then need no copy,
  and neither does global attention, which has no order. Pooling halves the windows as it halves the
  map.
- Elsewhere SAM2 fills the windows up with zeros. A token of zeros has the bias of the projection as
  its query, key and value, so only real tokens are projected, and one gather adds the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor

from sartm_model.utils.grid_cache import GridCache, constant_tensors


class TokenOrder(NamedTuple):
    """The order of a map's tokens.

    Attributes:
        height, width: of the map.
        window: side of the windows one after the other, each row by row; 0 where all tokens are
            ordered row by row.
    """

    height: int
    width: int
    window: int

    def view(self, x: Tensor) -> Tensor:
        """View `[N, T, C]` as maps `[n, h, w, C]`, of the windows or of the whole images."""
        size = (self.window, self.window) if self.window else (self.height, self.width)
        return x.view(-1, *size, x.shape[-1])

    def is_tiled_by(self, window: int) -> bool:
        """Return whether windows of that side cover the map without a remainder."""
        return window > 0 and self.height % window == 0 and self.width % window == 0


class HieraRunner:
    """Runs a trunk whose `qkv` layers take the modalities of the batch, see `lora`.

    Args:
        trunk: SAM2's Hiera. Several threads can run it at once.
        fixed: its weights do not change any more, so the position embedding is computed once a
            size.
    """

    def __init__(self, trunk: Hiera, *, fixed: bool) -> None:
        self._trunk = trunk
        self._fixed = fixed
        self._cache = GridCache()

    def __call__(
        self, images: Tensor, modalities: Sequence[str]
    ) -> list[tuple[Tensor, TokenOrder]]:
        """Return the tokens `[M * N, T, C_i]` of each stage and their order.

        Args:
            images: `[M * N, 3, H, W]`, N images of each of the M modalities.
            modalities: their names, in the order of the batch.
        """
        trunk = self._trunk
        patches = trunk.patch_embed(images.contiguous(memory_format=torch.channels_last))
        count, height, width, _ = patches.shape
        order = TokenOrder(height, width, 0)
        window = trunk.blocks[0].window_size
        if order.is_tiled_by(window):
            order = order._replace(window=window)

        def position_embedding() -> Tensor:
            return _by_window(trunk._get_pos_embed((height, width)), order.window).contiguous()

        key = ('position', order, trunk.pos_embed.device, trunk.pos_embed.dtype)
        position = self._cache.get(key, position_embedding) if self._fixed else position_embedding()
        # The first summand gives the sum its order in memory.
        x = (position + _by_window(patches, order.window)).reshape(count, height * width, -1)
        stages = []
        for index, block in enumerate(trunk.blocks):
            x, order = self._run_block(block, x, order, modalities)
            if index in trunk.stage_ends:
                stages.append((x, order))
        return stages

    def _run_block(
        self, block: Any, x: Tensor, order: TokenOrder, modalities: Sequence[str]
    ) -> tuple[Tensor, TokenOrder]:
        """Run a `MultiScaleBlock` on tokens `[N, T, C]`; return its result and the new order."""
        window, attn, has_pool = block.window_size, block.attn, block.q_stride is not None
        is_padded = window > 0 and not order.is_tiled_by(window)
        if window > 0 or has_pool:
            wanted = order._replace(window=window if order.is_tiled_by(window) else 0)
            x, order = reorder(x, order, wanted), wanted
        pooled = order
        if has_pool:
            pooled = TokenOrder(order.height // 2, order.width // 2, order.window // 2)
        normed = block.norm1(x)
        shortcut = x
        if block.dim != block.dim_out:
            shortcut = block.proj(normed)
            if has_pool:
                shortcut = _pool(order.view(shortcut)).reshape(len(x), -1, block.dim_out)
        qkv = attn.qkv(normed, modalities)  # [N, T, 3 C]
        if is_padded:
            of_zeros = attn.qkv.bias_row()[None].to(qkv.dtype)
            padded = torch.cat((qkv.flatten(0, 1), of_zeros))
            qkv = padded.index_select(0, self._gather_index(x, order, window))
        side = (window, window) if window > 0 else (order.height, order.width)
        q, k, v = qkv.view(-1, *side, 3, block.dim_out).unbind(dim=3)  # [n, h, w, C]
        if has_pool:
            q, window = _pool(q), window // 2
        attended = _attend(q, k, v, attn.num_heads)  # [n, h w, C]
        if is_padded:
            index = self._scatter_index(x, pooled, window)
            attended = attended.flatten(0, 1).index_select(0, index)
        x = shortcut + block.drop_path(attn.proj(attended.view(len(x), -1, block.dim_out)))
        return x + block.drop_path(block.mlp(block.norm2(x))), pooled

    def _gather_index(self, x: Tensor, order: TokenOrder, window: int) -> Tensor:
        """Return for each place in a window its token, or the number of tokens if it has none."""
        count, (height, width, _) = len(x), order

        def compute() -> np.ndarray:
            tokens = np.arange(count * height * width).reshape(count, height, width)
            rows, columns = -(-height // window), -(-width // window)
            padded = np.full((count, rows * window, columns * window), tokens.size)
            padded[:, :height, :width] = tokens
            return padded.reshape(count, rows, window, columns, window).swapaxes(2, 3).ravel()

        return self._index(('gather', count, order, window), compute, x.device)

    def _scatter_index(self, x: Tensor, order: TokenOrder, window: int) -> Tensor:
        """Return for each token its place in the windows."""
        count, (height, width, _) = len(x), order
        rows, columns = -(-height // window), -(-width // window)

        def compute() -> np.ndarray:
            places = np.arange(count * rows * columns * window * window)
            places = places.reshape(count, rows, columns, window, window).swapaxes(2, 3)
            places = places.reshape(count, rows * window, columns * window)
            return places[:, :height, :width].ravel()

        return self._index(('scatter', count, order, window), compute, x.device)

    def _index(
        self, key: tuple[Any, ...], compute: Callable[[], np.ndarray], device: torch.device
    ) -> Tensor:
        """Return a cached index as a tensor on the device."""
        (index,) = constant_tensors(
            ('hiera', *key), lambda: (np.ascontiguousarray(compute()),), device
        )
        return index


def reorder(x: Tensor, order: TokenOrder, wanted: TokenOrder) -> Tensor:
    """Bring tokens `[N, T, C]` from one order into another one of the same map."""
    count, tokens, channels = x.shape
    if order.window == wanted.window:
        return x
    if order.window:
        size = order.window
        windows = x.view(count, order.height // size, order.width // size, size, size, channels)
        x = windows.transpose(2, 3).reshape(count, tokens, channels)
    if wanted.window:
        maps = x.view(count, order.height, order.width, channels)
        x = _by_window(maps, wanted.window).reshape(count, tokens, channels)
    return x


def _by_window(x: Tensor, window: int) -> Tensor:
    """View maps `[N, h, w, C]` as their windows, `[N, h / s, w / s, s, s, C]`, if there are any."""
    if window == 0:
        return x
    return x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)


def _pool(x: Tensor) -> Tensor:
    """Return the largest of each 2x2 tokens of maps `[n, h, w, C]`."""
    pairs = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    rows = torch.maximum(pairs[:, :, 0], pairs[:, :, 1])  # [n, h / 2, w / 2, 2, C]
    return torch.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Run attention within each map of n, `[n, h, w, C]`; return `[n, h w, C]`, of q's h and w."""
    parts = (x.flatten(1, 2).unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
