"""SARTM: RGB-thermal semantic segmentation on SAM2, free of ROS.

`sartm_model.inference.predictor.Predictor` runs a checkpoint on numpy images; the node and the
`sartm` command are built on it. Nothing is imported here, so that `import sartm_model` costs
nothing.
"""

import os

# torch reads it when it is imported. Its threads would otherwise spin while one of them waits for a
# processor that another process has: beside one busy process that took ten times as long on two
# cores, while on an idle machine spinning saves a quarter. Set it yourself and it is left alone.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
