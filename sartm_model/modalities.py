"""The selections of images of a pair that a network can be given."""

from __future__ import annotations

SELECTIONS = ('both', 'rgb', 'thermal')
"""Both images of a pair, or one of them alone."""

DESCRIPTIONS = {'both': 'RGB and thermal', 'rgb': 'RGB alone', 'thermal': 'thermal alone'}
"""Text for each selection, for messages and reports."""
