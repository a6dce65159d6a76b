"""Metrics for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cutline_requests", "Requests answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.latency = Histogram(
            "cutline_request_seconds", "From a request's headers to its answer's end.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "cutline_errors", "Problems of requests and of single images.", ["code"],
            registry=self.registry,
        )  # fmt: skip
        self.images = Counter(
            "cutline_images", "Images answered.", ["status"], registry=self.registry
        )
        self.cache = Counter(
            "cutline_cache", "Images asked for: hit is kept, shared being made.", ["result"],
            registry=self.registry,
        )  # fmt: skip
        self.queue = Gauge(
            "cutline_queue_images", "Images accepted and not yet answered.",
            multiprocess_mode="livesum", registry=self.registry,
        )  # fmt: skip
        self.batches = Histogram(
            "cutline_batch_images", "Images captioned together.",
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "cutline_batch_seconds", "From a batch's start to its end.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def batch(self, size: int, seconds: float) -> None:
        """Record one batch."""
        self.batches.observe(size)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format, merged over worker processes."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
