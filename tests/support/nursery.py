"""Processes without the start of an interpreter: a server imports once what is under test, and forks for each call.

A child has its own descriptors, directory, environment and signals, and ends by itself: all that a process started by a
shell has, but for a fresh interpreter. Where that matters (what is loaded at start, `PYTHON*` variables, hash seeds)
tests start a real one.
"""

import atexit
import contextlib
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

START_SECONDS = 60
_LENGTH = struct.Struct("!I")
_NUMBER = struct.Struct("!i")


class Child:
    """A child under way, as `subprocess.Popen` shows one; `stdout` and `stderr` are the caller's ends, if piped."""

    def __init__(self, conn: socket.socket, stdin: IO[bytes] | None, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self._conn = conn
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.pid = _NUMBER.unpack(_receive(conn, _NUMBER.size))[0]
        self.returncode: int | None = None

    def __del__(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr, self._conn):
            if stream is not None:
                stream.close()

    def poll(self) -> int | None:
        """The exit code, that of a signal negative; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            with selectors.DefaultSelector() as ready:
                ready.register(self._conn, selectors.EVENT_READ)
                if not ready.select(timeout):
                    raise subprocess.TimeoutExpired(["nursery"], timeout or 0)
            self.returncode = _NUMBER.unpack(_receive(self._conn, _NUMBER.size))[0]
            self._conn.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, input: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """Write, read to the end, wait. A child still there after `timeout` is killed, and TimeoutExpired raised."""
        until = None if timeout is None else time.monotonic() + timeout
        got: dict[Any, list[bytes]] = {self.stdout: [], self.stderr: []}
        with selectors.DefaultSelector() as ready:
            for stream in got:
                ready.register(stream, selectors.EVENT_READ)
            if self.stdin is not None and input:
                os.set_blocking(self.stdin.fileno(), False)
                ready.register(self.stdin, selectors.EVENT_WRITE)
            elif self.stdin is not None:
                self.stdin.close()
            while ready.get_map():
                events = ready.select(None if until is None else max(0.0, until - time.monotonic()))
                if not events:
                    self.kill()
                    raise subprocess.TimeoutExpired(["nursery"], timeout or 0)
                for key, _ in events:
                    if key.fileobj is self.stdin:
                        input = self._write(input, ready)
                    elif block := os.read(key.fd, 1 << 16):
                        got[key.fileobj].append(block)
                    else:
                        ready.unregister(key.fileobj)
        self.wait(None if until is None else max(1.0, until - time.monotonic()))
        self.stdout.close(), self.stderr.close()
        return b"".join(got[self.stdout]), b"".join(got[self.stderr])

    def _write(self, data: bytes, ready: selectors.BaseSelector) -> bytes:
        assert self.stdin is not None
        try:
            data = data[os.write(self.stdin.fileno(), data[: 1 << 16]) :]
        except BrokenPipeError:
            data = b""
        if not data:
            ready.unregister(self.stdin)
            self.stdin.close()
        return data


class Nursery:
    """The server, started when it is first asked. It imports `preload`, and of `NAME.*` all modules below it."""

    def __init__(self, *preload: str) -> None:
        self._preload = preload
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(
        self,
        target: str,
        words: Sequence[str] = (),
        *,
        env: Mapping[str, str],
        cwd: object = None,
        stdin: int | None = None,
    ) -> Child:
        """Call `target` (`MODULE:FUNCTION`) in a child whose `sys.argv` is `words`; output is piped to here.

        `stdin` is a descriptor; None makes a pipe of it too.
        """
        conn = _connected(self.address)
        (out, out_there), (err, err_there) = os.pipe(), os.pipe()
        in_there, ours = (stdin, None) if stdin is not None else os.pipe()
        _ask(conn, target, words, env, str(cwd) if cwd is not None else os.getcwd(), [in_there, out_there, err_there])
        for descriptor in (out_there, err_there, *([in_there] if stdin is None else [])):
            os.close(descriptor)
        return Child(
            conn, None if ours is None else os.fdopen(ours, "wb", 0), os.fdopen(out, "rb"), os.fdopen(err, "rb")
        )

    @property
    def address(self) -> str:
        """The path of its socket; it is started where it is not there."""
        if self._server is None or self._server.poll() is not None:
            self._begin()
        assert self._folder is not None
        return f"{self._folder.name}/socket"

    def relay(self, target: str, name: str) -> list[str]:
        """A command line that calls `target` with `name` and the words after it, for scripts that start programs."""
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from support.nursery import relayed; relayed()"
        return [sys.executable, "-SEc", code, str(Path(__file__).parent.parent), self.address, target, name]

    def _begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nursery-")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self._folder.name}/socket")
        listener.listen(64)
        code = "import sys; sys.path.insert(0, sys.argv[1]); from support.nursery import serve; serve(*sys.argv[2:])"
        words = [str(Path(__file__).parent.parent), str(listener.fileno()), *self._preload]
        self._server = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
        )
        listener.close()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the server; children that are still there go on by themselves."""
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait(START_SECONDS)
        if self._folder is not None:
            self._folder.cleanup()
        self._server = self._folder = None


def _connected(address: str) -> socket.socket:
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(address)
    return conn


def _ask(
    conn: socket.socket,
    target: str,
    words: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    descriptors: Sequence[int],
) -> None:
    umask = os.umask(0)
    os.umask(umask)
    request = {"target": target, "words": list(words), "env": dict(env), "umask": umask, "cwd": cwd}
    raw = json.dumps(request).encode("utf-8", "surrogatepass")
    socket.send_fds(conn, [_LENGTH.pack(len(raw))], descriptors)
    conn.sendall(raw)


def relayed() -> None:
    """The whole life of a relay: what it was started with is the child's, and the child's end its own."""
    _, address, target, *words = sys.argv
    with _connected(address) as conn:
        _ask(conn, target, words, os.environ, os.getcwd(), [0, 1, 2])
        _receive(conn, _NUMBER.size)
        code = _NUMBER.unpack(_receive(conn, _NUMBER.size))[0]
    sys.exit(code if code >= 0 else 128 - code)


def serve(descriptor: str, *preload: str) -> None:
    """The server's whole life: it ends when its standard input does."""
    listener = socket.socket(fileno=int(descriptor))
    for name in preload:
        _import_all(name)
    under_way: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ)
        ready.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is listener:
                    conn = listener.accept()[0]
                    pid = _forked(conn)
                    pidfd = os.pidfd_open(pid)
                    under_way[pidfd] = pid, conn
                    ready.register(pidfd, selectors.EVENT_READ)
                elif key.fd == 0:
                    return
                else:
                    ready.unregister(key.fd)
                    pid, conn = under_way.pop(key.fd)
                    os.close(key.fd)
                    _answer(conn, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    conn.close()


def _import_all(name: str) -> None:
    """A module; `NAME.*` is a package with all that is below it."""
    module = importlib.import_module(name.removesuffix(".*"))
    for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}.") if name.endswith(".*") else ():
        if not found.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # what needs an extra that is not installed
                importlib.import_module(found.name)


def _forked(conn: socket.socket) -> int:
    head, descriptors, _, _ = socket.recv_fds(conn, _LENGTH.size, 3)
    request = json.loads(_receive(conn, _LENGTH.unpack(head)[0]).decode("utf-8", "surrogatepass"))
    pid = os.fork()
    if pid == 0:
        try:
            code = _child(request, descriptors)
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    for descriptor in descriptors:
        os.close(descriptor)
    _answer(conn, pid)
    return pid


def _child(request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 4096 else 4096)
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = list(request["words"])
    # ruff: noqa: SIM115 (standard streams are never closed)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8", errors="surrogateescape")
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", 0, closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    module, _, function = request["target"].partition(":")
    code: object = None
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


def _answer(conn: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # whoever asked may be gone
        conn.sendall(_NUMBER.pack(number))


def _receive(conn: socket.socket, count: int) -> bytes:
    raw = b""
    while len(raw) < count:
        block = conn.recv(count - len(raw))
        if not block:
            raise ConnectionError("the nursery is gone")
        raw += block
    return raw
