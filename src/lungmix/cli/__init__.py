"""The command line: parse, call, print."""

from lungmix.cli.app import main

__all__ = ["main"]
