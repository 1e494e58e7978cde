"""Training: one step, one loop, checkpointing, optimisers and schedules; `train` and `pretrain`."""
