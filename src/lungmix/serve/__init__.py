"""HTTP server that gives viewers read-only access to a store."""

from lungmix.serve.files import PUBLIC_VIEWERS, app_for
from lungmix.serve.links import CaseLinks, links_of
from lungmix.serve.run import Served, serve

__all__ = ["PUBLIC_VIEWERS", "CaseLinks", "Served", "app_for", "links_of", "serve"]
