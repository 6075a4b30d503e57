"""Files for other programs."""

from lungmix.export.images import export_image

__all__ = ["export_image"]
