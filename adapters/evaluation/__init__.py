"""Base against adapter: held-out perplexity, task files, and what their scores prove."""

from adapters.evaluation.measurement import Measurement, is_worse

__all__ = ["Measurement", "is_worse"]
