"""SARTM: RGB-thermal semantic segmentation on SAM2, free of ROS.

`sartm_model.predictor.Predictor` runs a checkpoint on numpy images; the node and the `sartm`
command are built on it. Nothing is imported here, so that `import sartm_model` costs nothing.
"""
