"""Auto-ReID (Quan et al., ICCV 2019) as a search / train / evaluate system on fused kernels."""

__version__ = "0.1.0"
