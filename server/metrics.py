"""What Prometheus is told. Names begin with upbeat_; times are in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipelines.messages import Stats
from server.events import Timings, TurnDone

SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
MARKS = {
    "first_token_ms": ("time_to_first_token", "From the commit to the first token", SHORT),
    "first_audio_ms": ("time_to_first_audio", "From the commit to the first audio", SHORT),
    "first_preview_ms": ("time_to_first_preview", "From the commit to the first preview", SHORT),
    "image_ms": ("image", "From the commit to the finished image", LONG),
    "total_ms": ("turn", "From the commit to the end of the turn", LONG),
}


class CostErrors(Collector):  # type: ignore[misc]
    """How far predictions of slices are off, in the median; a series a pipeline and kind of slice."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[GaugeMetricFamily]:
        text = "Median relative error of the last predictions of a slice's device time"
        family = GaugeMetricFamily("upbeat_cost_error", text, labels=("pipeline", "kind"))
        for name, error in self._stats().cost_error.items():
            pipeline, _, kind = name.rpartition("/")
            family.add_metric((pipeline, kind), error)
        yield family


class Metrics:
    """All series of one server, in a registry of their own. Owner: the event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._marks = {
            field: self._histogram(name, text, buckets) for field, (name, text, buckets) in MARKS.items()
        }
        self._queue = self._histogram("queue", "A job's time ready but waiting for the device", SHORT, "job")
        self._device = self._histogram("device", "A job's time on the device", LONG, "job")
        self._gap = self._histogram(
            "inter_chunk_gap", "Between two events of one kind in a turn", SHORT, "kind"
        )
        self._barge_in = self._histogram("barge_in_stop", "From `interrupt` to turn_done on the wire", SHORT)
        self._rpcs = self._counter("rpcs", "RPCs by method and status", "method", "code")
        self._turns = self._counter("turns", "Turns by finish reason", "reason")
        self._refusals = self._counter("refusals", "What admission turned away", "method")
        self._preemptions = self._counter("preemptions", "Work suspended for more urgent work")
        self._evictions = self._counter("evictions", "Memory taken from suspended work")

    def watch(self, streams: Callable[[], int], up: Callable[[], bool], stats: Callable[[], Stats]) -> None:
        """Gauges that are read when Prometheus asks."""
        self._gauge("streams", "Open streams", streams)
        self._gauge("device_up", "1 while the device takes jobs", up)
        self._gauge("longest_gap_ms", "Longest gap between preemption points", lambda: stats().longest_gap_ms)
        self._gauge("jobs_running", "Jobs on the device", lambda: stats().running)
        self._gauge("jobs_suspended", "Jobs whose slice is suspended", lambda: stats().suspended)
        self._gauge("jobs_queued", "Jobs that wait for the device", lambda: stats().queued)
        self.registry.register(CostErrors(stats))

    def rpc(self, method: str, code: str) -> None:
        self._rpcs.labels(method, code).inc()
        if code == "RESOURCE_EXHAUSTED":
            self._refusals.labels(method).inc()

    def turn(self, done: TurnDone) -> None:
        """A turn, or a request of one of the other services, has ended."""
        self._turns.labels(done.reason.name).inc()
        self._timings(done.timings)

    def gap(self, kind: str, seconds: float) -> None:
        self._gap.labels(kind).observe(seconds)

    def barge_in(self, seconds: float) -> None:
        self._barge_in.observe(seconds)

    def serve(self, host: str, port: int) -> tuple[WSGIServer, Thread]:
        """Answers Prometheus on a thread of its own."""
        server, thread = start_http_server(port, addr=host, registry=self.registry)
        return server, thread

    def _timings(self, timings: Timings) -> None:
        for field, histogram in self._marks.items():
            value = getattr(timings, field)
            if value is not None:
                histogram.observe(max(0.0, value / 1000.0))
        for modality, job in timings.jobs.items():
            self._queue.labels(modality).observe(job.queue_ms / 1000.0)
            self._device.labels(modality).observe(job.device_ms / 1000.0)
            self._preemptions.inc(job.preemptions)
            self._evictions.inc(job.evictions)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"upbeat_{name}_seconds", text, labels, registry=self.registry, buckets=buckets)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"upbeat_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"upbeat_{name}", text, registry=self.registry).set_function(value)
