"""Reports of runs: HTML pages (`pages`), figures (`plots`), tables as text, TensorBoard images."""
