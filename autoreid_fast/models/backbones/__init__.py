"""Backbones: ResNets, published cell networks, and plain modules."""
