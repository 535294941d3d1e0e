"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from engines.errors import Exit
from serve.store import Store

SECONDS = (0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800)


class Metrics:
    """The figures of one service, in a registry of its own."""

    def __init__(self, store: Store) -> None:
        self._store, self._registry = store, CollectorRegistry()
        new = {"registry": self._registry}
        self.deaths = Counter("vivace_worker_deaths", "Workers that died and were replaced", **new)
        self._ended = Counter("vivace_jobs_ended", "Jobs by how they ended", ["reason"], **new)
        self._frames = Counter("vivace_frames", "Frames of completed videos", **new)
        self._first = Histogram(
            "vivace_first_frame_seconds", "From start to first frame", buckets=SECONDS, **new
        )
        self._total = Histogram("vivace_video_seconds", "From start to end", buckets=SECONDS, **new)
        self.ready: Callable[[], int] = lambda: 0
        self.workers = 0
        self._registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give what is counted when it is asked for, for the registry."""
        jobs = GaugeMetricFamily("vivace_jobs", "Jobs that are kept, by state", labels=["state"])
        for state, count in self._store.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("vivace_workers_ready", "Workers whose engines have started", self.ready())
        yield GaugeMetricFamily("vivace_workers", "Workers that should be ready", self.workers)

    def ended(self, line: Mapping, reason: Exit) -> None:
        """Count a job that a worker has ended. line: of the manifest."""
        self._ended.labels(reason.name.lower()).inc()
        if reason is Exit.OK:
            self._frames.inc(line["frames"])
            self._first.observe(line["first_frame_seconds"])
            self._total.observe(line["total_seconds"])

    def text(self) -> bytes:
        """Return all of it in Prometheus's format."""
        return generate_latest(self._registry)
