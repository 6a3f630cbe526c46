"""Sizes of the network's input and of the image that it was resized from, for tests of labels."""

CASES = [
    ((64, 96), (64, 96)),
    ((60, 80), (120, 160)),
    ((37, 53), (75, 107)),  # odd sizes, so the factor is not whole
    ((64, 64), (50, 33)),  # the image is smaller than the input
    ((1, 1), (2, 3)),
]
