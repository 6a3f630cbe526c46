"""SARTM: RGB-thermal semantic segmentation on SAM2, free of ROS.

`sartm_model.inference.predictor.Predictor` runs a checkpoint on numpy images; the node and the
`sartm` command are built on it. Importing this package imports nothing and sets nothing.
"""
