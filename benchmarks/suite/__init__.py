"""Timings of single kernels and stages, tracked by asv: ``asv run --python=same --config benchmarks/asv.conf.json``."""
