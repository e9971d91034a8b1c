"""Watching a gateway: the dashboards as code, and ``make observe`` to see them alive.

``python -m gateway.observing dashboards`` writes deploy/grafana/dashboards.
"""
