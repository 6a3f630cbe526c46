"""The ROS 2 node of SARTM and its bag tools; the network itself is in `sartm_model`."""
