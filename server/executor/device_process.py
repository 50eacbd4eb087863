"""The device process: `python -m server.executor.device_process ADDRESS PARENT_PID LOG_LEVEL < settings`.

Threads: the main thread receives and prepares (Intake); the executor's thread owns the device; the uplink's
two threads finish and send. The process ends on Stop, or with its parent.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

import msgspec
import zmq

from pipelines.contract import Budget, Pipeline
from pipelines.errors import UpbeatError
from pipelines.loading import LoadPlan, load_all
from pipelines.messages import LoadFailed, Ready, Stop, Trace, Up
from server import logs
from server.executor.executor import DeviceExecutor
from server.executor.frames import pack_up, unpack_down
from server.executor.guard import end_process_with_threads
from server.executor.intake import Intake
from server.executor.process_guard import die_with_parent
from server.executor.scheduler import Scheduler
from server.executor.settings import DeviceSettings
from server.executor.uplink import Uplink

if TYPE_CHECKING:
    from pipelines.device import Device

logger = logging.getLogger("upbeat.device")
STATS_EVERY_S = 1.0
SORTED_AT_ONCE = 1000


def plan_of(settings: DeviceSettings) -> LoadPlan:
    """What `load_all` needs of the settings."""
    names = LoadPlan.__dataclass_fields__
    return LoadPlan(**{name: getattr(settings, name) for name in names})


def settle() -> None:
    """After loading: a full collection takes 200 ms with the libraries' half a million objects, and would
    land between two yields. They stay; from now on only what jobs leave behind is looked through.
    """
    gc.collect()
    gc.freeze()


class DeviceProcess:
    """Wires intake, executor and uplink to the two sockets."""

    def __init__(self, settings: DeviceSettings, address: str, parent_pid: int) -> None:
        self._context = zmq.Context()
        self._down = self._context.socket(zmq.PULL)
        self._down.connect(address + ".down")
        self._up = self._context.socket(zmq.PUSH)
        self._up.connect(address + ".up")
        self._up_lock = threading.Lock()
        self._settings = settings
        self._parent_pid = parent_pid

    def main(self) -> None:
        """Load, serve until Stop."""
        from pipelines.device import open_device

        try:
            device = open_device(self._settings.device, self._settings.threads)
            pipelines = load_all(plan_of(self._settings), lambda what: logger.info("loading %s", what))
        except UpbeatError as error:
            self._send(LoadFailed(error.message))
            time.sleep(0.2)
            raise SystemExit(2) from None
        settle()
        self._serve(pipelines, device)

    def end(self) -> NoReturn:
        """Ends the process once all is sent, without the interpreter's teardown: it takes long, and
        libraries report there, line by line, what they leak."""
        self._context.destroy(linger=1000)
        logging.shutdown()
        os._exit(0)

    def _serve(self, pipelines: dict[str, Pipeline], device: Device) -> None:
        settings = self._settings
        uplink = Uplink(self._send, lambda job_id: intake.forget(job_id))
        executor = DeviceExecutor(
            pipelines,
            Scheduler(settings.promised_delay_ms),
            device,
            Budget(settings.slice_ms, settings.promised_delay_ms),
            uplink.emit,
            released=uplink.drop,
            send_trace=lambda trace: self._send(Trace(trace)),
        )
        intake = Intake(pipelines, executor.inbox.post)
        uplink.start()
        worker = threading.Thread(target=executor.run, name="upbeat-executor", daemon=True)
        worker.start()
        self._send(Ready(tuple(pipeline.info for pipeline in pipelines.values())))
        self._receive(intake, executor)
        worker.join(timeout=5)
        uplink.stop()

    def _receive(self, intake: Intake, executor: DeviceExecutor) -> None:
        next_stats_s = 0.0
        while True:
            if self._down.poll(0 if intake.waiting else 200):
                self._sort_in(intake)
            if isinstance(intake.take_next(), Stop):
                return
            if os.getppid() != self._parent_pid:
                return
            if time.monotonic() >= next_stats_s:
                next_stats_s = time.monotonic() + STATS_EVERY_S
                self._send(executor.stats())

    def _sort_in(self, intake: Intake) -> None:
        """What has arrived by now, since whose turn it is depends on all of it."""
        with contextlib.suppress(zmq.Again):
            for _ in range(SORTED_AT_ONCE):
                intake.put(unpack_down(self._down.recv(zmq.NOBLOCK)))

    def _send(self, message: Up) -> None:
        with self._up_lock:
            self._up.send_multipart(pack_up(message), copy=False)


def main() -> None:
    """Arguments: the link's address, the parent's process id, what to log; settings as JSON on standard
    input."""
    address, parent, log_level = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # The gateway says when to stop.
        signal.signal(number, signal.SIG_IGN)
    end_process_with_threads()
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=DeviceSettings)
    logs.configure(log_level)
    process = DeviceProcess(settings, address, parent)
    process.main()
    process.end()


if __name__ == "__main__":
    main()
