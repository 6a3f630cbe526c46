"""A process that runs the label kernel in Triton's interpreter: a file of cases in, planes out."""

import os
import sys

os.environ['TRITON_INTERPRET'] = '1'  # read when Triton is imported

import torch

from sartm_model.network import label_kernel

if __name__ == '__main__':
    label_kernel.BLOCK = 8192  # a program takes the interpreter as long whatever its size
    cases = torch.load(sys.argv[1], weights_only=True)
    torch.save([label_kernel.label_planes(**case) for case in cases], sys.argv[2])
