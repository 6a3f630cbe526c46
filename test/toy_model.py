"""A network in a dozen lines under the name 'toy', and the node that serves it.

It shares nothing with SARTM: one head, no adapters, no feature map for losses, other strides.
"""

from __future__ import annotations

import sys

from torch import Tensor, nn

from sartm_model.modalities import MODALITIES
from sartm_model.models.base import SegmentationModel
from sartm_model.models.registry import MODELS

ENTRY = 'toy_model:Toy'


class Toy(SegmentationModel):
    """One convolution a modality, summed, and a linear classifier."""

    HEADS = {'main': 'classifier'}  # noqa: RUF012
    ROW_PER_CLASS = ('classifier.weight', 'classifier.bias')
    INPUT_STRIDE = LOGIT_STRIDE = 8

    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.stems = nn.ModuleDict(
            {name: nn.Conv2d(MODALITIES[name].channels, 16, 8, 8) for name in config.modalities}
        )
        self.classifier = nn.Conv2d(16, num_classes, 1)

    def encode(self, images, drop_mask) -> Tensor:
        maps = {name: self.stems[name](image) for name, image in images.items()}
        if drop_mask is not None:
            for name, dropped in zip(self.config.modalities, drop_mask.unbind(1), strict=True):
                if name in maps:
                    maps[name] = maps[name] * ~dropped[:, None, None, None]
        return sum(maps.values()).relu()


if __name__ == '__main__':
    from sartm_ros.node.main import main

    MODELS['toy'] = ENTRY
    sys.exit(main())
