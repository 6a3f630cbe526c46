"""LiDAR points projected into the camera, as 8-bit images of three channels."""

from __future__ import annotations

from sartm_model.modalities.coded import CodedImage


class Lidar(CodedImage):
    """What DELIVER has in its folder `lidar`."""

    name = 'lidar'
    title = 'LiDAR'
    folder_names = 'lidar'
    advice = 'is it depth in millimetres, modality depth?'
