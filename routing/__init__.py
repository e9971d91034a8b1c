"""Which domains a prompt is about: embed it, score the domains, calibrate, pick at most four."""
