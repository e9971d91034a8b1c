"""``python -m gateway`` is ``kiki``."""

from __future__ import annotations

from gateway.cli import main

main()
