"""From sources to measurements: which stages run for which cases, and what became of them."""

from lungmix.pipeline.passing import reason_of
from lungmix.pipeline.pipeline import Pipeline
from lungmix.pipeline.report import Report
from lungmix.store.models import stored_model

__all__ = ["Pipeline", "Report", "reason_of", "stored_model"]
