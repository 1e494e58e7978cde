"""The paper's tables: each row a spec over the configs of `search`, `pretrain`, `train` and `rank`."""
