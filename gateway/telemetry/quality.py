"""The second look: how panels are decided, how often dissent is called for, what reads biased."""

from __future__ import annotations

from itertools import product
from typing import get_args

from antibias.detector import TYPES
from antibias.review import Action, Review
from gateway.telemetry.metrics import Metrics
from negotiator.arbitration import Bias, Outcome
from negotiator.verdict import How, Verdict


class QualityMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.negotiations = self.counter(
            "kiki_negotiations",
            "Panels by how their answer was chosen.",
            "how",
            values=get_args(How),
        )
        self.audits = self.counter(
            "kiki_verdict_audits",
            "Audits of judges' verdicts by bias and outcome.",
            "bias",
            "outcome",
        )
        for bias, outcome in product(get_args(Bias), get_args(Outcome)):
            self.audits.labels(bias, outcome)
        self.catfish_considered = self.counter(
            "kiki_catfish_considered", "Panels in which dissent was considered."
        )
        self.catfish_fired = self.counter(
            "kiki_catfish_fired",
            "Panels in which it was called for: under 10 % or over 90 % of those considered, "
            "catfish_below is to be calibrated anew.",
        )
        self.reviews = self.counter(
            "kiki_bias_reviews",
            "Answers looked at for bias, by what came of it.",
            "action",
            values=get_args(Action),
        )
        self.bias_findings = self.counter(
            "kiki_bias_findings",
            "Passages of answers that read biased, by type.",
            "type",
            values=TYPES,
        )

    def count_verdict(self, verdict: Verdict) -> None:
        self.negotiations.labels(verdict.how).inc()
        for audit in verdict.audits:
            self.audits.labels(audit.bias, audit.outcome).inc()
        if verdict.gate is not None:
            self.catfish_considered.inc()
            self.catfish_fired.inc(verdict.gate.fired)

    def count_review(self, review: Review) -> None:
        self.reviews.labels(review.action).inc()
        for finding in review.findings:
            self.bias_findings.labels(finding.type).inc()
