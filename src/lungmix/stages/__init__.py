"""Stages of the method, one module each: what a stage reads, writes and depends on.

Every stage returns ``"kept"`` if the store held its valid result already, and ``"done"`` if it computed the result.
"""
