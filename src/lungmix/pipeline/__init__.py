"""From sources to measurements: decide which stages run for which cases, run them, and collect results and failures."""

from lungmix.pipeline.pipeline import Pipeline
from lungmix.pipeline.result import RunResult
from lungmix.pipeline.runner import reason_of
from lungmix.store.models import stored_model

__all__ = ["Pipeline", "RunResult", "reason_of", "stored_model"]
