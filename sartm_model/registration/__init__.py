"""Thermal in the geometry of RGB: the homography between them, and `sartm align`."""
