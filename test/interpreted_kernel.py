"""A process that runs the label kernel in Triton's interpreter.

Arguments: a file of cases and of pairs of images, and one for the planes of each.
"""

import os
import sys

os.environ['TRITON_INTERPRET'] = '1'  # read when Triton is imported

import torch

from sartm_model.network import label_kernel
from sartm_model.predictor import Predictor

if __name__ == '__main__':
    label_kernel.BLOCK = 8192  # a program takes the interpreter as long whatever its size
    given = torch.load(sys.argv[1], weights_only=True)
    planes = [label_kernel.label_planes(**case) for case in given['cases']]
    predictor = Predictor('demo', device='cpu', engine='eager')
    predictor.network.label_kernel = label_kernel.label_planes
    for images in given['pairs']:
        rgb, thermal = (None if image is None else image.numpy() for image in images)
        found = predictor.predict(rgb, thermal, confidence=True, overlay=True)
        names = ('labels', 'confidence', 'overlay')
        planes.append({name: torch.from_numpy(getattr(found, name)) for name in names})
    torch.save(planes, sys.argv[2])
