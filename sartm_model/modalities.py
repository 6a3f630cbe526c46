"""Which images of a pair a network is given."""

from __future__ import annotations

SELECTIONS = ('both', 'rgb', 'thermal')
"""Both images of a pair, or one of them alone."""

DESCRIPTIONS = {'both': 'RGB and thermal', 'rgb': 'RGB alone', 'thermal': 'thermal alone'}
"""Each selection as it is shown to people."""
