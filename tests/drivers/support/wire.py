"""A PostgreSQL client of a few lines, for what drivers hide: every message, in order."""

import socket
import struct
from typing import NamedTuple

from .processes import HOST

PROTOCOL_3_0 = 196608
ANSWER_SECONDS_MAX = 60


class Message(NamedTuple):
    kind: str
    body: bytes

    def fields(self) -> dict[str, str]:
        """The fields of an ErrorResponse or NoticeResponse: S severity, C code, M message, H hint."""
        parts = self.body.split(b"\0")
        return {part[:1].decode(): part[1:].decode(errors="replace") for part in parts if part}


class Wire:
    """One connection, byte by byte."""

    def __init__(self, port: int):
        self.socket = socket.create_connection((HOST, port), timeout=ANSWER_SECONDS_MAX)
        self._buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_exception) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def message(self, kind: str, body: bytes = b"") -> None:
        self.send(kind.encode() + struct.pack("!i", len(body) + 4) + body)

    def startup(self, **parameters: str) -> None:
        body = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items()) + b"\0"
        self.send(struct.pack("!ii", len(body) + 8, PROTOCOL_3_0) + body)

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, or fewer at the end of the stream."""
        while len(self._buffer) < count:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                break
            self._buffer += chunk
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def next(self) -> Message | None:
        """The next message, or None at the end of the stream."""
        head = self.read(5)
        if len(head) < 5:
            return None
        return Message(chr(head[0]), self.read(struct.unpack("!i", head[1:])[0] - 4))

    def until(self, *kinds: str) -> list[Message]:
        """Messages up to the first of one of `kinds`, or to the end of the stream."""
        seen = []
        while True:
            message = self.next()
            if message is None:
                return seen
            seen.append(message)
            if message.kind in kinds:
                return seen

    def log_in(self, password: str, **parameters: str) -> list[Message]:
        """Startup with a password; the messages up to ReadyForQuery, FATAL or the end."""
        self.startup(**parameters)
        seen = self.until("R", "E")
        if seen and seen[-1].kind == "R" and seen[-1].body == struct.pack("!i", 3):
            self.message("p", password.encode() + b"\0")
            seen += self.until("Z", "E")
        return seen

    def query(self, sql: bytes) -> list[Message]:
        self.message("Q", sql + b"\0")
        return self.until("Z")


def fatal(messages: list[Message]) -> dict[str, str]:
    """The fields of the error that ended it."""
    errors = [message for message in messages if message.kind == "E"]
    assert errors, f"no error came, only {messages}"
    return errors[-1].fields()
