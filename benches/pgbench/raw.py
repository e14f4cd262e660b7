"""A client of a few lines that costs next to nothing: what is measured is the way, not psql."""

import base64
import hashlib
import hmac
import os
import ssl
import struct

from support.wire import Wire

from sides import DATABASE, ROLE, Side

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
CHUNK = 1 << 18
# psql sends what it reads in pieces of this size.
COPY_PIECE = 8192
READY = b"Z\0\0\0\5I"
ASKS_PASSWORD, ASKS_SASL, SASL_GOES_ON = 3, 10, 11


class Raw(Wire):
    """One connection to a side, logged in."""

    def __init__(self, side: Side, tls: str = "off"):
        super().__init__(side.port)
        if tls == "on":
            self.send(SSL_REQUEST)
            if self.socket.recv(1) != b"S":
                raise RuntimeError(f"{side.name} does not speak TLS")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        options = {"options": side.options} if side.options else {}
        self.startup(user=ROLE, database=DATABASE, **options)
        self._authenticate(side)

    def _authenticate(self, side: Side) -> None:
        while True:
            answer = self.next()
            if answer is None or answer.kind == "E":
                raise RuntimeError(f"{side.name} refused: {answer.fields() if answer else 'end of stream'}")
            if answer.kind == "Z":
                return
            if answer.kind != "R":
                continue
            asked = struct.unpack("!i", answer.body[:4])[0]
            if asked == ASKS_PASSWORD:
                self.message("p", side.password.encode() + b"\0")
            elif asked == ASKS_SASL:
                self._scram(side.password.encode())

    def _scram(self, password: bytes) -> None:
        """RFC 5802 without channel binding; what the server says last is not checked."""
        first = b"n=,r=" + base64.b64encode(os.urandom(18))
        self.message("p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first) + 3) + b"n,," + first)
        answer = self.next()
        if answer.kind != "R" or struct.unpack("!i", answer.body[:4])[0] != SASL_GOES_ON:
            raise RuntimeError(f"SCRAM was answered by {answer}")
        given = dict(part.split(b"=", 1) for part in answer.body[4:].split(b","))
        salted = hashlib.pbkdf2_hmac("sha256", password, base64.b64decode(given[b"s"]), int(given[b"i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        last = b"c=biws,r=" + given[b"r"]
        signed = hmac.digest(hashlib.sha256(key).digest(), first + b"," + answer.body[4:] + b"," + last, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signed))
        self.message("p", last + b",p=" + base64.b64encode(proof))

    def receive(self, sql: str) -> int:
        """Runs a statement whose answer is large; the bytes of the answer."""
        self.message("Q", sql.encode() + b"\0")
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        total, tail = 0, b""
        while not tail.endswith(READY):
            count = self.socket.recv_into(view)
            if count == 0:
                raise RuntimeError(f"the stream ended after {total} bytes")
            if total == 0 and buffer[0] not in b"TH":
                raise RuntimeError(f"{sql} was answered by {bytes(view[:count])!r}")
            total += count
            tail = (tail + bytes(view[max(0, count - len(READY)):count]))[-len(READY):]
        return total

    def copy_in(self, sql: str, row: bytes, size: int) -> int:
        """COPY FROM STDIN of about `size` bytes of rows; the bytes that were sent."""
        self.message("Q", sql.encode() + b"\0")
        answer = self.until("G", "Z")[-1]
        if answer.kind != "G":
            raise RuntimeError(f"{sql} was not answered by CopyInResponse")
        rows = row * (COPY_PIECE // len(row))
        pieces = (b"d" + struct.pack("!i", len(rows) + 4) + rows) * (CHUNK // COPY_PIECE)
        times = max(1, size // len(pieces))
        for _ in range(times):
            self.socket.sendall(pieces)
        self.message("c")
        if any(message.kind == "E" for message in self.until("Z")):
            raise RuntimeError(f"{sql} failed")
        return times * len(pieces)
