"""Data sets, the decoded image cache, the identity sampler and the batches."""
