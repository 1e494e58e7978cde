"""Every op in plain PyTorch: the fallback where no native kernel runs, and the oracle of its tests."""
