"""Where the gateway's CPU goes: perf's samples by symbol and by kind of work."""

import collections
import pathlib
import re
import shutil
import subprocess

from parts import Bench, say
from sides import Side

HERTZ = 1999
TOP = 10

# The kind of work of a kernel sample: by the system call at its root.
SYSCALLS = [
    (r"send|recv|sock|accept|connect|shutdown", "kernel: sockets"),
    (r"writev?$|pwrite|fdatasync|fsync|fallocate|pread", "kernel: files (journal)"),
    (r"epoll|poll", "kernel: epoll"),
    (r"futex|sched_yield", "kernel: futex"),
]
# The kind of work of our own code: by the symbol.
SYMBOLS = [
    (r"sha2|sha256|sha1|digest", "sha"),
    (r"rustls|ring_core|aes|gcm|chacha|ghash", "tls"),
    (r"pgwitness_index|recorder|journal", "journal and recorder"),
    (r"pgwitness_protocol|pgwitness", "ours"),
    (r"tokio|mio::", "tokio"),
    (r"mem(cpy|move|set|cmp)|_int_(malloc|free)|malloc|free|realloc|alloc::", "memory"),
]


def profile(side: Side, bench: Bench, seconds: int, folder: pathlib.Path) -> dict | None:
    """Samples the side under eight prepared clients; None where perf is not there or not allowed."""
    if shutil.which("perf") is None:
        say("perf is not installed: no profile")
        return None
    data = folder / "perf.data"
    recorder = subprocess.Popen(
        ["perf", "record", "-q", "-F", str(HERTZ), "-g", "-p", str(side.pid), "-o", str(data), "--",
         "sleep", str(max(1, seconds - 1))], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    bench.run(side, "prepared", 8, "off", seconds)
    _, told = recorder.communicate(timeout=60)
    if recorder.returncode != 0 or not data.exists():
        say(f"perf could not record: {told}")
        return None
    script = subprocess.run(["perf", "script", "-i", str(data), "-F", "comm,ip,sym,dso"], capture_output=True,
                            text=True, errors="replace", timeout=300)
    data.unlink()
    return count(script.stdout)


def count(script: str) -> dict:
    """The shares of perf's samples: `comm` on a line of its own, then one line for each frame."""
    symbols: collections.Counter = collections.Counter()
    kinds: collections.Counter = collections.Counter()
    threads: collections.Counter = collections.Counter()
    total = 0
    for sample in re.split(r"\n\s*\n", script.strip()):
        head, *lines = sample.splitlines()
        frames = [read(line) for line in lines if line.strip()]
        if not frames:
            continue
        total += 1
        symbols[frames[0][0] if not frames[0][1] else f"{frames[0][0]} [kernel]"] += 1
        kinds[kind(frames)] += 1
        threads[head.strip()] += 1
    share = lambda counter, most: [(name, number / total) for name, number in counter.most_common(most)]  # noqa: E731
    return {"samples": total, "symbols": share(symbols, TOP), "kinds": share(kinds, None), "threads": share(threads, TOP)}


def read(line: str) -> tuple[str, bool]:
    """The symbol of a frame, and whether it is the kernel's."""
    fields = line.strip().split(" ", 1)
    symbol, _, dso = fields[1].rpartition(" (") if len(fields) > 1 else ("", "", "")
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol)
    return symbol or "[unknown]", "[kernel" in dso or "vmlinux" in dso or ".ko" in dso


def kind(frames: list[tuple[str, bool]]) -> str:
    symbol, kernel = frames[0]
    if not kernel:
        return next((name for pattern, name in SYMBOLS if re.search(pattern, symbol)), "other user code")
    calls = [symbol for symbol, kernel in frames if kernel and re.match(r"__(x64|arm64|se)_sys_", symbol)]
    if not calls:
        return "kernel: interrupts and scheduling"
    call = re.sub(r"^__\w+?_sys_", "", calls[-1])
    return next((name for pattern, name in SYSCALLS if re.search(pattern, call)), f"kernel: {call}")
