"""LoRA adapters of the package `peft` on the layers of a network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import nn

from sartm_model.utils.torchvision_patch import patch_torchvision_ops


def inject_adapters(network: nn.Module, names: Sequence[str], rank: int, *, layers: str) -> None:
    """Give layers trainable low-rank adapters of `peft` and freeze the other weights.

    Args:
        network: contains the layers.
        names: of the adapters that each layer gets, such as one a modality.
        rank: r of eq. 6-7.
        layers: regular expression for the names of the layers in `network`.
    """
    patch_torchvision_ops()
    from peft import LoraConfig, inject_adapter_in_model

    # alpha = r makes peft's factor alpha / r one: the paper does not scale.
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=layers)
    with warnings.catch_warnings():
        # peft warns of a second adapter on the same layers, which is intended here.
        warnings.filterwarnings('ignore', message='Already found a `peft_config` attribute')
        for name in names:
            inject_adapter_in_model(config, network, adapter_name=name)
