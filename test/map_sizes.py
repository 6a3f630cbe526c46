"""Sizes of the network's input and of the image that it was resized from, for tests of labels."""

CASES = [
    ((64, 96), (64, 96)),
    ((60, 80), (120, 160)),
    ((37, 53), (75, 107)),  # odd sizes, so the factor is not whole
    ((64, 64), (50, 33)),  # the image is smaller than the input
    ((1, 1), (2, 3)),
    ((224, 64), (61, 40)),  # no padding, and torch rounds 56 * (61 / 56) down to 60
]


def extent(input_size):
    """Height and width in logits, at stride 4, of an input without its padding."""
    return input_size[0] / 4, input_size[1] / 4
