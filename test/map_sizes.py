"""Sizes at which labels are made of logits: what the network saw, and the size of the labels."""

CASES = [
    # as large, twice as large, odd, shrunk, a single place
    ((64, 96), (64, 96)),
    ((60, 80), (120, 160)),
    ((37, 53), (75, 107)),
    ((64, 64), (50, 33)),
    ((1, 1), (2, 3)),
]
