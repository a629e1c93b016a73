"""What training needs of the machine: a device, checkpoints that survive a kill, a log of metrics."""
