"""Registers thermal images with RGB images: the homography and its estimation (`sartm align`)."""
