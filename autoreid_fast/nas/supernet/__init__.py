"""Supernets: edge by edge (the reference), arranged by source (fast), and sampled (GDAS)."""
