"""Networks to train: backbones by name, ResNets, the embedding head, and what a network costs."""
