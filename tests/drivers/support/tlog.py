"""Checks proofs of the log with nothing of ours: written from RFC 6962, RFC 9162 (2.1.3, 2.1.4) and c2sp.org's
signed-note, tlog-checkpoint, tlog-proof and tlog-tiles, and from the description of leaves in the documentation."""

import base64
import hashlib
import json
import pathlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PROOF = "c2sp.org/tlog-proof@v1"
DASH = "\u2014 "


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry)


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right)


def root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1: the Merkle tree hash."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(root(leaves[:split]), root(leaves[split:]))


def root_from_inclusion(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162, 2.1.3.2."""
    assert index < size
    fn, sn, node = index, size - 1, leaf
    for sibling in path:
        assert sn != 0
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return node


def roots_from_consistency(first: int, second: int, first_root: bytes, path: list[bytes]) -> tuple[bytes, bytes]:
    """RFC 9162, 2.1.4.2: both roots as the proof has them."""
    assert 0 < first < second
    path = [first_root, *path] if first & (first - 1) == 0 else path
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for node in path[1:]:
        assert sn != 0
        if fn & 1 or fn == sn:
            old, new = node_hash(node, old), node_hash(node, new)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, node)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return old, new


@dataclass
class Checkpoint:
    origin: str
    size: int
    root: bytes


def checkpoint(note: str, key: str) -> Checkpoint:
    """A checkpoint that the key signed."""
    name, key_id, encoded = key.split("+", 2)
    public = base64.b64decode(encoded)
    assert public[0] == 1, "Ed25519"
    own = sha256(name.encode() + b"\n" + public)[:4]
    assert own.hex() == key_id
    text, lines = note.rsplit("\n\n", 1)
    text += "\n"
    signed = 0
    for line in lines.splitlines():
        assert line.startswith(DASH)
        signer, signature = line[len(DASH):].split(" ")
        signature = base64.b64decode(signature)
        if signer == name and signature[:4] == own:
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], text.encode())
            signed += 1
    assert signed == 1
    origin, size, root_hash = text.splitlines()[:3]
    assert origin == name
    return Checkpoint(origin, int(size), base64.b64decode(root_hash))


def proven_leaf(file: str, key: str) -> tuple[bytes, dict]:
    """The entry that a proof's file shows to be in the log, and the values that open its commitments."""
    head, note = file.split("\n\n", 1)
    lines = head.splitlines()
    assert lines[0] == PROOF and lines[1].startswith("extra ") and lines[2].startswith("index ")
    extra = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
    index = int(lines[2].removeprefix("index "))
    path = [base64.b64decode(line) for line in lines[3:]]
    tree = checkpoint(note, key)
    entry = base64.b64decode(extra["entry"])
    assert root_from_inclusion(leaf_hash(entry), index, tree.size, path) == tree.root
    return entry, {name: opened(value) for name, value in extra["values"].items()}


def opened(value: dict) -> tuple[bytes, bytes]:
    """A value and its commitment."""
    salt, plain = base64.b64decode(value["salt"]), base64.b64decode(value["value"])
    assert len(salt) == 16
    return plain, sha256(salt + sha256(plain))


class Fields:
    """The canonical bytes of an entry, version 1."""

    def __init__(self, entry: bytes):
        self.rest = entry

    def take(self, count: int) -> bytes:
        assert len(self.rest) >= count
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def number(self) -> int:
        return struct.unpack(">Q", self.take(8))[0]

    def text(self) -> str:
        length = self.take(1)[0]
        return self.take(32).hex() if length == 255 else self.take(length).decode()

    def maybe(self, read):
        return {0: lambda: None, 1: read}[self.take(1)[0]]()

    def digest(self) -> bytes:
        return self.take(32)


def record(entry: bytes) -> dict:
    """What the leaf of a record says."""
    fields = Fields(entry)
    assert fields.take(2) == b"\1\1"
    said = {"seq": fields.number(), "id": fields.take(16).hex(), "time_us": fields.number(), "event": fields.text(),
            "who": fields.digest(), "shape": fields.maybe(fields.digest), "sql": fields.maybe(fields.digest),
            "params": fields.maybe(fields.digest), "detail": fields.maybe(fields.digest),
            "end": fields.maybe(lambda: end(fields))}
    assert not fields.rest
    return said


def completion(entry: bytes) -> dict:
    """What the leaf of an end says."""
    fields = Fields(entry)
    assert fields.take(2) == b"\1\2"
    said = {"seq": fields.number(), **end(fields)}
    assert not fields.rest
    return said


def end(fields: Fields) -> dict:
    return {"outcome": fields.text(), "txn_outcome": fields.text(), "command": fields.text(),
            "rows": fields.maybe(fields.number), "bytes": fields.number(), "duration_us": fields.number(),
            "sqlstate": fields.text(), "error": fields.maybe(fields.digest), "notes": fields.maybe(fields.digest)}


def strings(value: bytes, count: int) -> list[str]:
    """The first strings of a value."""
    found = []
    for _ in range(count):
        [length] = struct.unpack(">I", value[:4])
        found.append(value[4:4 + length].decode())
        value = value[4 + length:]
    return found


def tiled(folder: pathlib.Path, key: str) -> list[bytes]:
    """Every entry of a log in c2sp.org/tlog-tiles' layout, after checking all its tiles and its checkpoint."""
    tree = checkpoint((folder / "checkpoint").read_text(), key)
    entries, hashes, level, size = [], [], 0, tree.size
    while size:
        below, hashes = hashes, []
        for tile in range((size + 255) // 256):
            width = min(256, size - 256 * tile)
            path = tile_path(tile, width)
            content = (folder / "tile" / str(level) / path).read_bytes()
            assert len(content) == 32 * width
            own = [content[at:at + 32] for at in range(0, len(content), 32)]
            if level == 0:
                bundle = unbundled((folder / "tile" / "entries" / path).read_bytes())
                assert [leaf_hash(entry) for entry in bundle] == own
                entries += bundle
            hashes += own
        if level:
            assert hashes == [root(below[256 * at:256 * at + 256]) for at in range(size)]
        else:
            assert root(hashes) == tree.root
        level, size = level + 1, size // 256
    assert len(entries) == tree.size
    return entries


def tile_path(index: int, width: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03}")
    return "/".join(groups) + ("" if width == 256 else f".p/{width}")


def unbundled(bundle: bytes) -> list[bytes]:
    entries = []
    while bundle:
        [length] = struct.unpack(">H", bundle[:2])
        assert len(bundle) >= 2 + length
        entries.append(bundle[2:2 + length])
        bundle = bundle[2 + length:]
    return entries
