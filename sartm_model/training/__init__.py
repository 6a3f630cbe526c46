"""Training: losses, text teacher, augmentation, the Lightning module and the entry point."""

from sartm_model.torchvision_guard import mend_torchvision

mend_torchvision()  # before Lightning, peft and open_clip, each of which may import torchvision
