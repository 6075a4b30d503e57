"""The stages of the method, one file each: what a stage reads, writes and depends on.

Every stage answers ``"kept"`` when the store already holds its valid result, and ``"done"`` when it made it.
"""
