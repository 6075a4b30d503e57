"""Stages of the method, one module each: what a stage reads, writes and depends on.

Every stage returns ``"kept"`` where the store already holds its valid result, and ``"done"`` where it computed it.
"""
