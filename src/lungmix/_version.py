"""Version of the package, read from its installed metadata; the build derives it from the tags of the repository."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lungmix")
except PackageNotFoundError:  # the sources are on the path, but not installed
    __version__ = "0+unknown"
