"""Class colours blended over an image, for numpy arrays and torch tensors."""

from __future__ import annotations

from typing import Any


def blend_classes(
    image: Any, labels: Any, colors: Any, opacity: Any, background_id: int | None
) -> Any:
    """Blend the colours of the classes over an image; the background leaves the image as it is.

    Uses only operators that numpy arrays and torch tensors have in common, so that the overlay can
    be made on the device.

    Args:
        image: float32 counts `[H, W, 3]`, or `[H, W, 1]` of a grey image.
        labels: class ids `[H, W]`.
        colors: float32 `[H, W, 3]`, the colour of each pixel's class.
        opacity: 0 (image only) to 1 (colours only).
        background_id: the class that stays transparent; None to blend every class.

    Returns:
        Whole numbers from 0 to 255, `[H, W, 3]`, of the image's type.
    """
    weight = opacity if background_id is None else (labels != background_id)[..., None] * opacity
    return (image + weight * (colors - image)).round()
