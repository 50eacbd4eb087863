"""An executor in this very process, behind the same interface: for tests and for embedding."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipelines.contract import Budget, Pipeline
from pipelines.device import Device
from pipelines.errors import DeviceLost, NotFound
from pipelines.messages import Down, Emit, ModelInfo, StartTrace, Stats, Stop
from server.executor.executor import DeviceExecutor
from server.executor.intake import Intake
from server.executor.link import JobHandle, JobOrder, JobTable
from server.executor.scheduler import Scheduler
from server.executor.settings import DeviceSettings
from server.executor.uplink import Uplink


class LocalLink:
    """Pipelines that are already loaded, run by a thread of this process; implements `Link`."""

    def __init__(self, pipelines: Mapping[str, Pipeline], device: Device, settings: DeviceSettings) -> None:
        self._pipelines = pipelines
        self._uplink = Uplink(self._from_executor, lambda job_id: self._intake.forget(job_id))
        self._executor = DeviceExecutor(
            pipelines,
            Scheduler(settings.promised_delay_ms),
            device,
            Budget(settings.slice_ms, settings.promised_delay_ms),
            self._uplink.emit,
            released=self._uplink.drop,
            send_trace=self._deliver_trace,
        )
        self._intake = Intake(pipelines, self._executor.inbox.post)
        self._hands = ThreadPoolExecutor(1, thread_name_prefix="upbeat-intake")
        self._table = JobTable(self._send)
        self._watchers: list[Callable[[bool], None]] = []
        self._traces: list[asyncio.Future[bytes]] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return tuple(pipeline.info for pipeline in self._pipelines.values())

    @property
    def up(self) -> bool:
        return self._thread is not None

    @property
    def stats(self) -> Stats:
        return self._executor.stats()

    def on_change(self, callback: Callable[[bool], None]) -> None:
        self._watchers.append(callback)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._uplink.start()
        self._thread = threading.Thread(target=self._executor.run, name="upbeat-executor", daemon=True)
        self._thread.start()
        for callback in self._watchers:
            callback(True)

    async def stop(self) -> None:
        if self._thread is None:
            return
        self._send(Stop())
        thread, self._thread = self._thread, None
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._uplink.stop)
        self._hands.shutdown()
        for callback in self._watchers:
            callback(False)
        self._table.fail_all("the server is stopping")
        for answer in self._traces:
            if not answer.done():
                answer.set_exception(DeviceLost("the server is stopping"))
        self._traces.clear()

    def submit(self, order: JobOrder) -> JobHandle:
        if self._thread is None:
            raise DeviceLost("the executor is not running")
        pipeline = self._pipelines.get(order.pipeline)
        if pipeline is None:
            raise NotFound(f"model: there is no model {order.pipeline!r}", field="model")
        return self._table.submit(order, pipeline.info.modality)

    async def trace(self, seconds: float) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._traces.append(answer)
        self._send(StartTrace(seconds))
        return await answer

    def _send(self, message: Down) -> None:
        if self._thread is not None:
            self._intake.put(message)
            self._hands.submit(self._intake.take_next)

    def _from_executor(self, emit: Emit) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._table.deliver, emit)

    def _deliver_trace(self, json: bytes) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._answer_traces, json)

    def _answer_traces(self, json: bytes) -> None:
        for answer in self._traces:
            if not answer.done():
                answer.set_result(json)
        self._traces.clear()
