"""A device in a child process: started, watched, restarted.

If the process dies, running jobs fail with DeviceLost at once, the gateway lives on, and a new process is
started after a pause that grows while it keeps dying. Each process gets sockets of its own, so nothing
of a dead one arrives late. Owner of everything here: the gateway's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import zmq

from pipelines.errors import DeviceLost, ModelBroken, NotFound
from pipelines.messages import Down, Emit, LoadFailed, ModelInfo, Ready, StartTrace, Stats, Stop, Trace, Up
from server.executor.frames import pack_down, unpack_up
from server.executor.link import JobHandle, JobOrder, JobTable
from server.executor.settings import DeviceSettings

logger = logging.getLogger("upbeat.link")
NO_STATS = Stats(0, 0, 0, 0, 0, 0.0, 0.0)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
# A thread that waits for the others of a computation looks so often, some tenth of a millisecond, before it
# sleeps. GNU OpenMP looks 300,000 times, for milliseconds, and keeps its processor from the one it waits for
# where others compute too.
SPINS = 10_000
ROOT = Path(__file__).parents[2]


class Channel:
    """The two sockets of one device process."""

    def __init__(self, folder: Path, number: int, receive: Callable[[Up], None]) -> None:
        self.address = f"ipc://{folder}/device-{number}"
        self._receive = receive
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._down = self._bind(context, zmq.PUSH, self.address + ".down")
        self._up = self._bind(context, zmq.PULL, self.address + ".up")
        self._descriptor = int(self._up.getsockopt(zmq.FD))
        asyncio.get_running_loop().add_reader(self._descriptor, self._drain)

    @staticmethod
    def _bind(context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str) -> zmq.Socket[bytes]:
        socket = context.socket(kind)
        socket.set_hwm(0)
        socket.linger = 0
        socket.bind(address)
        return socket

    def send(self, message: Down) -> None:
        """Never blocks: credits bound what is under way. Dropped where nobody is connected: the process
        has not come up yet or is gone, and its jobs fail with it."""
        with contextlib.suppress(zmq.Again):
            self._down.send(pack_down(message), zmq.NOBLOCK)

    def close(self) -> None:
        """Nothing arrives any more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        self._down.close()
        self._up.close()

    def _drain(self) -> None:
        """The descriptor signals edges, so everything is read until nothing is left."""
        while not self._up.closed:
            try:
                frames = self._up.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(unpack_up(frames))


class ProcessLink:
    """One device process and the jobs that run on it; implements `Link`."""

    def __init__(self, settings: DeviceSettings) -> None:
        self._settings = settings
        self._table = JobTable(self._send)
        self._models: dict[str, ModelInfo] = {}
        self._stats = NO_STATS
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="upbeat-")
        self._up = False
        self._served = False
        self._watchers: list[Callable[[bool], None]] = []
        self._loaded: asyncio.Future[None] | None = None
        self._traces: list[asyncio.Future[bytes]] = []
        self._keeper: asyncio.Task[None] | None = None

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return tuple(self._models.values())

    @property
    def up(self) -> bool:
        return self._up

    @property
    def stats(self) -> Stats:
        return self._stats

    @property
    def pid(self) -> int:
        """Process id of the device process, 0 where none runs."""
        return self._process.pid if self._process is not None else 0

    def on_change(self, callback: Callable[[bool], None]) -> None:
        self._watchers.append(callback)

    async def start(self) -> None:
        self._loaded = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(), name="upbeat-device-keeper")
        await self._loaded

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._folder.cleanup()

    def submit(self, order: JobOrder) -> JobHandle:
        if not self._up:
            raise DeviceLost("the device is restarting", retry_after_s=3.0)
        model = self._models.get(order.pipeline)
        if model is None:
            raise NotFound(f"model: there is no model {order.pipeline!r}", field="model")
        return self._table.submit(order, model.modality)

    async def trace(self, seconds: float) -> bytes:
        if not self._up:
            raise DeviceLost("the device is restarting", retry_after_s=3.0)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._traces.append(answer)
        self._send(StartTrace(seconds))
        return await answer

    # --- life of the process --------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Start the process, wait for its end, start it again."""
        pause_s, number = FIRST_PAUSE_S, 0
        try:
            while True:
                number += 1
                try:
                    await self._launch(number)
                except OSError:
                    logger.exception("the device process cannot be started")
                else:
                    await self._watch()
                served, self._served = self._served, False
                pause_s = FIRST_PAUSE_S if served else min(pause_s * 2, LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s)
        finally:
            await self._end_process()
            self._lost("the server is stopping")

    async def _watch(self) -> None:
        assert self._process is not None
        code = await self._process.wait()
        self._served = self._up
        self._lost(f"the device process ended with code {code}")

    async def _launch(self, number: int) -> None:
        self._channel = Channel(Path(self._folder.name), number, self._receive)
        threads = self._settings.threads or os.cpu_count() or 1
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "server.executor.device_process"),
            self._channel.address,
            str(os.getpid()),
            logging.getLevelName(logger.getEffectiveLevel()),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the gateway, which drains before it says Stop.
            env=environment(os.environ, threads),
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._settings))
        self._process.stdin.close()

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if not self._up:
            process.kill()  # it is loading: nobody waits for what it would finish
        elif self._channel is not None:
            self._send(Stop())
        try:
            await asyncio.wait_for(process.wait(), timeout=3.0)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _lost(self, reason: str) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._set_up(False)
        self._table.fail_all(reason)
        for answer in self._traces:
            if not answer.done():
                answer.set_exception(DeviceLost(reason))
        self._traces.clear()
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_exception(ModelBroken(f"{reason} while loading; its log says why"))

    # --- messages ---------------------------------------------------------------------------------------

    def _send(self, message: Down) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _receive(self, message: Up) -> None:
        match message:
            case Emit():
                self._table.deliver(message)
            case Stats():
                self._stats = message
            case Ready(models):
                self._models = {model.name: model for model in models}
                self._set_up(True)
                if self._loaded is not None and not self._loaded.done():
                    self._loaded.set_result(None)
            case Trace(json):
                for answer in self._traces:
                    if not answer.done():
                        answer.set_result(json)
                self._traces.clear()
            case LoadFailed(text):
                logger.error("the device process cannot load its models: %s", text)
                if self._loaded is not None and not self._loaded.done():
                    self._loaded.set_exception(ModelBroken(text))

    def _set_up(self, up: bool) -> None:
        if up != self._up:
            self._up = up
            for callback in self._watchers:
                callback(up)


def environment(given: Mapping[str, str], threads: int) -> dict[str, str]:
    """Of a device process, which finds the modules that its gateway found, whatever the working folder holds.
    How long threads spin is the operator's to say, where he does."""
    spins = {} if "OMP_WAIT_POLICY" in given else {"GOMP_SPINCOUNT": str(SPINS)}
    path = os.pathsep.join(filter(None, (str(ROOT), given.get("PYTHONPATH"))))
    ours = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    return {**spins, **given, **ours}
