"""Segments by SAM2's automatic mask generator, of the `sam2` package."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.pseudo_labels.segments import RANKINGS, Segment, segment_of
from sartm_model.utils.torchvision_patch import patch_torchvision_ops


@dataclass(frozen=True)
class Sam2Segments:
    """Prompts SAM2 with a grid of points and keeps the masks that it is sure of.

    Attributes:
        checkpoint: SAM2's `.pt`, of any size; `sartm download sam2` fetches it.
        device: such as 'cuda:0'. On CUDA the arithmetic is in half precision.
        points_per_side: points a side of the grid.
        points_per_batch: points that are decoded at once; more need more memory.
        min_predicted_iou, min_stability: masks with less are dropped.
        max_box_iou: of two masks whose boxes overlap more, the one with the lower predicted IoU is
            dropped.

    Raises:
        SartmError: the weights cannot be read, or a package is missing.
    """

    rankings: ClassVar[tuple[str, ...]] = RANKINGS

    checkpoint: Path
    device: str = 'cpu'
    points_per_side: int = 32
    points_per_batch: int = 64
    min_predicted_iou: float = 0.8
    min_stability: float = 0.95
    max_box_iou: float = 0.7

    def __post_init__(self) -> None:
        for name in ('points_per_side', 'points_per_batch'):
            if getattr(self, name) < 1:
                raise SartmError(f'{name} is {getattr(self, name)}; expected 1 or more')
        _ = self._generator  # fails now if it fails at all

    def __call__(self, image: np.ndarray, name: str) -> list[Segment]:
        """Return the segments of a scaled image `[H, W]`, by falling predicted IoU."""
        import torch

        grey = (image.clip(0, 1) * 255).astype(np.uint8)
        on_cuda = self.device.startswith('cuda')
        with torch.autocast('cuda', torch.float16) if on_cuda else nullcontext():
            found = self._generator.generate(np.repeat(grey[..., None], 3, axis=2))
        segments = [
            segment_of(
                mask['segmentation'],
                {'predicted_iou': mask['predicted_iou'], 'stability': mask['stability_score']},
            )
            for mask in found
        ]
        return [segment for segment in segments if segment is not None]

    @cached_property
    def _generator(self) -> Any:
        patch_torchvision_ops()
        try:
            import sam2.automatic_mask_generator as module
        except ImportError as error:
            raise SartmError(
                f'SAM2 segments need the packages sam2 and torchvision ({error})'
            ) from error
        from torchvision.extension import _has_ops

        from sartm_model.models.sartm.sam2_weights import build_sam2

        if not _has_ops():  # torchvision's wheel does not fit this build of torch
            module.batched_nms = suppress_non_maxima
        return module.SAM2AutomaticMaskGenerator(
            build_sam2(self.checkpoint).to(self.device),
            points_per_side=self.points_per_side,
            points_per_batch=self.points_per_batch,
            pred_iou_thresh=self.min_predicted_iou,
            stability_score_thresh=self.min_stability,
            box_nms_thresh=self.max_box_iou,
        )


def suppress_non_maxima(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
    """Return the boxes that do not overlap a better one too much, as `torchvision.ops.batched_nms`.

    Args:
        boxes: left, top, right, bottom, `[N, 4]`.
        scores: `[N]`.
        idxs: category of each box, `[N]`; boxes of different categories do not compete.
        iou_threshold: the overlap above which the box with the lower score is dropped.

    Returns:
        Indices of the boxes that are kept, by falling score.
    """
    import torch
    from torchvision.ops.boxes import box_iou

    order = scores.argsort(descending=True, stable=True)
    overlaps = box_iou(boxes[order], boxes[order]) > iou_threshold
    overlaps &= idxs[order, None] == idxs[None, order]
    kept = torch.ones(len(order), dtype=torch.bool, device=order.device)
    for place in range(len(order)):
        if kept[place]:
            kept[place + 1 :] &= ~overlaps[place, place + 1 :]
    return order[kept]
