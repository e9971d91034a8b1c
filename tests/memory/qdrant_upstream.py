"""A scripted upstream that speaks as much of Qdrant's REST as kiki asks, and fails when told to.

It is for faults only; what kiki asks is tried on the real client's local mode, and on a real
server where KIKI_TEST_QDRANT_URL names one (tests/contract/test_vector_store.py).
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np

Fault = Literal["none", "down", "slow", "half"]
SLOW_S = 3.0


class Upstream:
    """``fault`` may be changed at any time; one that ``refuses`` knows nobody's key."""

    def __init__(self, port: int = 0) -> None:
        self.fault: Fault = "none"
        self.refuses = False
        self.collections: dict[str, dict[str, Any]] = {}
        self.held: dict[str, dict[str, dict[str, Any]]] = {}
        self._turns = itertools.count()
        self._released = threading.Event()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = json.loads(body) if body else {}
                status, answer = upstream.answer(self.command, self.path.split("?")[0], asked)
                told = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            do_GET = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def points(self) -> dict[str, dict[str, Any]]:
        """The episodes' points, by their ids."""
        return self.held.get("kiki", {})

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        if self.refuses:
            return 401, {"status": {"error": "no such key"}, "time": 0}
        if self.fault == "slow":
            self._released.wait(SLOW_S)
        if self.fault == "down" or (self.fault == "half" and next(self._turns) % 2):
            return 503, {"status": {"error": "scripted"}, "time": 0}
        status, result = self._result(method, path, body)
        return status, {"result": result, "status": "ok", "time": 0.0}

    def _result(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        _, _, name, *rest = path.split("/")
        what = "/".join(rest)
        points = self.held.get(name, {})
        if what == "exists":
            return 200, {"exists": name in self.collections}
        if not rest and method == "PUT":
            self.collections[name] = body
            self.held[name] = {}
            return 200, True
        if not rest and method == "DELETE":
            return 200, bool(
                self.collections.pop(name, None) and self.held.pop(name, None) is not None
            )
        if not rest:
            return 200, _told(self.collections[name])
        if what == "index":
            return 200, _done()
        if what == "points" and method == "PUT":
            points |= {point["id"]: point for point in body["points"]}
            return 200, _done()
        if what == "points":
            return 200, [points[id_] for id_ in body["ids"] if id_ in points]
        if what == "points/delete":
            for clause in body["filter"]["should"]:
                ids, written = clause["must"]
                for id_ in ids["has_id"]:
                    held = points.get(id_)
                    if held and held["payload"]["written"] <= written["range"]["lte"]:
                        del points[id_]
            return 200, _done()
        if what == "points/count":
            return 200, {"count": len(_matching(points, body.get("filter")))}
        if what == "points/query":
            found = [
                point
                | {"version": 0, "score": float(np.dot(point["vector"], body["query"]["nearest"]))}
                for point in _matching(points, body.get("filter"))
            ]
            found.sort(key=lambda point: -point["score"])
            return 200, {"points": found[: body["limit"]]}
        if what == "points/scroll":
            since = body["filter"]["must"][0]["range"]["gte"]
            later = [point for point in points.values() if point["payload"]["at"] >= since]
            return 200, {"points": later, "next_page_offset": None}
        raise AssertionError(f"kiki asked {method} {path}")


@contextmanager
def running(port: int = 0) -> Iterator[Upstream]:
    upstream = Upstream(port)
    try:
        yield upstream
    finally:
        upstream.close()


def _done() -> dict[str, Any]:
    return {"operation_id": 0, "status": "completed"}


def _told(made: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "points_count": 0,
        "payload_schema": {},
        "config": {
            "params": {"vectors": made["vectors"]},
            "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "metadata": made.get("metadata"),
        },
    }


def _matching(points: dict[str, dict[str, Any]], wanted: Any) -> list[dict[str, Any]]:
    if not wanted:
        return list(points.values())
    owner = wanted["must"][0]["match"]["value"]
    out = {id_ for clause in wanted.get("must_not") or () for id_ in clause["has_id"]}
    return [
        point
        for id_, point in points.items()
        if point["payload"]["owner"] == owner and id_ not in out
    ]
