"""Segments without a network: Felzenszwalb's graph-based segmentation, by scikit-image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from sartm_model.errors import SartmError
from sartm_model.pseudo_labels.segments import Segment


@dataclass(frozen=True)
class GraphSegments:
    """Segments an image by `skimage.segmentation.felzenszwalb`.

    P. Felzenszwalb and D. Huttenlocher, Efficient Graph-Based Image Segmentation, IJCV 2004.

    Attributes:
        scale: a higher value gives fewer and larger segments.
        sigma: deviation in pixels of the Gaussian that the image is smoothed with.
        min_size: segments of fewer pixels are merged with a neighbour.
        side: the image is segmented with its longer side reduced to this many pixels; the other
            lengths refer to the reduced image.

    Raises:
        SartmError: scikit-image is not installed, or a value is not positive.
    """

    rankings: ClassVar[tuple[str, ...]] = ('area', 'contrast')

    scale: float = 300.0
    sigma: float = 0.8
    min_size: int = 50
    side: int = 320

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise SartmError(f'graph: {name} is {value}; expected more than 0')
        try:
            import skimage.segmentation  # noqa: F401
        except ImportError as error:
            raise SartmError(
                f'graph segments need scikit-image: pip install scikit-image ({error})'
            ) from error

    def __call__(self, image: np.ndarray, name: str) -> list[Segment]:
        """Return the segments of a scaled image `[H, W]`; each pixel belongs to one."""
        from skimage.measure import regionprops
        from skimage.segmentation import felzenszwalb

        height, width = image.shape
        factor = min(self.side / max(height, width), 1.0)
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        numbers = felzenszwalb(reduced, scale=self.scale, sigma=self.sigma, min_size=self.min_size)
        numbers = numbers.astype(np.int32) + 1  # 0 would be no region
        numbers = cv2.resize(
            numbers.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
        ).astype(np.int32)
        regions = regionprops(numbers)
        return [Segment(r.bbox[0], r.bbox[1], r.image, {}) for r in regions]
