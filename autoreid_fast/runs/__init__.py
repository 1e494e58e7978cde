"""A run on disk: its folder and lock, checkpoints, events, and the types of its files."""
