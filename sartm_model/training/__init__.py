"""Training: losses, text teacher, Lightning module, callbacks and entry point."""

from sartm_model.utils.torchvision_patch import patch_torchvision_ops

# Before Lightning, peft and open_clip are imported: each of them may import torchvision.
patch_torchvision_ops()
