"""The version, in one place: that of the installed package, which its build takes from the tags."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lungmix")
except PackageNotFoundError:  # sources on the path that nothing has installed
    __version__ = "0+unknown"
