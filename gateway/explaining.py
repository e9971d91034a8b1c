"""Why a prompt is routed as it is, for ``POST /v1/route`` and ``kiki route``."""

from __future__ import annotations

from typing import Any

from routing.conversation import Routed
from routing.neighbours import Neighbours
from routing.router import Router

DIGITS = 6


def explanation(routed: Routed, router: Router, neighbours: Neighbours) -> dict[str, Any]:
    """Every number behind the decision; nothing is computed anew but the nearest prompts."""
    decision, stickiness = routed.decision, routed.stickiness
    return {
        "scores": [{"name": s.name, "score": round(s.score, DIGITS)} for s in decision.scores],
        "shares": [
            {"name": d.name, "weight": round(d.weight, DIGITS), "member": d.member}
            for d in decision.active
        ],
        "threshold": decision.threshold,
        "in_domain": round(decision.in_domain, DIGITS),
        "scope_threshold": router.card.scope_threshold,
        "confidence": round(decision.confidence, DIGITS),
        "clear": decision.clear,
        "conversation": {
            "share": stickiness.share,
            "alone": stickiness.alone,
            "together": stickiness.together,
            "effect": stickiness.effect,
        },
        "advised": routed.advised,
        "nearest": [
            {"prompt": near.prompt, "domains": list(near.domains), "similarity": near.similarity}
            for near in neighbours.nearest(routed.vector)
        ],
    }
