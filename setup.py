"""Packages and native libraries of autoreid_fast."""

from setuptools import find_packages, setup

PACKAGES = find_packages(include=["autoreid_fast", "autoreid_fast.*"])

setup(
    packages=[*PACKAGES, "autoreid_fast.kernels", "autoreid_fast.benchmarks"],
    package_dir={"autoreid_fast.kernels": "kernels", "autoreid_fast.benchmarks": "benchmarks"},
    package_data={"autoreid_fast": ["py.typed", "configs/presets/*.yaml", "*.so"]},
)
