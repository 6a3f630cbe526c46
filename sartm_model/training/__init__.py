"""Training: losses, text teacher, augmentation, the Lightning module and the entry point."""

from sartm_model.utils.torchvision_patch import patch_torchvision_ops

# Before Lightning, peft and open_clip, each of which may import torchvision.
patch_torchvision_ops()
