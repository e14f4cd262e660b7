"""Child processes on loopback: free ports, bounded waits, output kept for the report."""

import os
import pathlib
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import IO, TypeVar

HOST = "127.0.0.1"
STOP_SECONDS_MAX = 15
WATCH_SECONDS_MAX = 120
ROOT = pathlib.Path(__file__).resolve().parents[3]

T = TypeVar("T")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def until(what: str, probe: Callable[[], T | None], seconds: float = 10.0, every: float = 0.02) -> T:
    """The first true answer of `probe`, or a TimeoutError that says what was waited for."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(every)


def listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def watch(arguments: list[str], environment: dict, read: Callable[[str], None]) -> int:
    """Runs a program; `read` gets what it prints, as it comes. Its exit code."""
    process = subprocess.Popen(arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    end = time.monotonic() + WATCH_SECONDS_MAX
    try:
        stream = process.stdout.fileno()
        while True:
            if not select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{arguments[0]} did not end within {WATCH_SECONDS_MAX} s")
            chunk = os.read(stream, 65536)
            if not chunk:
                return process.wait(STOP_SECONDS_MAX)
            read(chunk.decode(errors="replace"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Child:
    """One process with its output in a file."""

    def __init__(self, command: list[str], output: pathlib.Path, **options):
        self.output = output
        self._sink: IO[bytes] = open(output, "ab")
        options.setdefault("stdout", self._sink)
        options.setdefault("stderr", self._sink)
        options.setdefault("stdin", subprocess.DEVNULL)
        self.process = subprocess.Popen(command, **options)

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self, last: int = 4000) -> str:
        """The end of what it printed."""
        return self.output.read_text(errors="replace")[-last:]

    def kill(self) -> None:
        """kill -9: no chance to tidy up."""
        self.process.kill()
        self._gone()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end; after a bounded wait, insists."""
        if self.alive():
            os.kill(self.pid, how)
        try:
            return self._gone(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _gone(self, seconds: float = STOP_SECONDS_MAX) -> int:
        code = self.process.wait(seconds)
        self._sink.close()
        return code
