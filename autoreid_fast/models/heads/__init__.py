"""Heads behind a backbone: the embedding of Sec. 3.2, and strips as in PCB and HPM."""
