"""The command line ``lungmix``: parse options, call the library, print results."""

from lungmix.cli.app import main

__all__ = ["main"]
