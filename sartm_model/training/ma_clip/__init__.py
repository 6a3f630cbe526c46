"""MA-CLIP of SegRGB-X: its training, and its embeddings of the frames that a network trains on."""
