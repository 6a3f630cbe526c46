"""A checkpoint as other runtimes take it: camera counts in, labels and confidence out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sartm_model.data.transforms import to_input
from sartm_model.inference.choices import PRECISIONS
from sartm_model.inference.export_config import ExportConfig
from sartm_model.modalities.base import to_counts
from sartm_model.models.base import SegmentationModel
from sartm_model.models.logits import class_probabilities, labels_and_confidence, upsample_logits


class ExportedModel(nn.Module):
    """All that `Predictor.predict` computes, in operations that ONNX and TensorRT have.

    TensorRT has bytes as inputs and outputs alone. So these are converted at once, and the results
    at last.

    Args:
        model: merged, in float32, in evaluation mode; it is converted to the configured precision.
        config: the images that it takes.
    """

    def __init__(self, model: SegmentationModel, config: ExportConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype = PRECISIONS[config.precision]
        self.model = model.to_precision(self.dtype)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Segment one pair.

        Args:
            inputs: the raw images of `config.sizes`, in its order. After all may follow which of
                them are given, uint8 `[M]`, 0 for one that is missing; its image is then ignored.

        Returns:
            Labels and confidence, uint8 `[H, W]`.
        """
        sizes = self.config.sizes
        counts = dict(zip(sizes, inputs, strict=False))
        given = inputs[len(sizes)] if len(inputs) > len(sizes) else None
        size = next(iter(self.config.sizes_after_crop.values()))
        input_size = self.model.scaled_size(size)
        images = {}
        for name, raw in counts.items():
            scaled = to_counts(self.config.scale(name, raw))[None]
            images[name] = to_input(name, scaled, size, size=input_size).to(self.dtype)
        drop_mask = None if given is None else self._drop_mask(given.int()[None] == 0)
        heads, extent = self.model.forward_logits(images, drop_mask)
        logits = upsample_logits(torch.stack(heads).float(), extent, size)
        labels, confidence = labels_and_confidence(class_probabilities(logits), torch.int32)
        return labels.to(torch.uint8), (confidence * 255).round().to(torch.uint8)

    def _drop_mask(self, is_missing: Tensor) -> Tensor:
        """Return the mask of all the network's modalities from that of the inputs, `[1, n]`."""
        sizes, modalities = list(self.config.sizes), self.model.config.modalities
        if len(sizes) == len(modalities):
            return is_missing
        not_taken = torch.zeros_like(is_missing[:, 0])
        columns = dict(zip(sizes, is_missing.unbind(1), strict=True))
        return torch.stack([columns.get(name, not_taken) for name in modalities], dim=1)
