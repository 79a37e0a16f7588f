"""A threaded loopback TCP server that stops at once and cleanly; the base of every server in this package.

Subclass ``Server`` and override ``serve(sock)``; use it as a context manager. Expected ends of a connection
(the peer left, TLS refused) are swallowed; whatever else ``serve`` raises is raised again by ``stop``.
"""

import contextlib
import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import Self

LOOPBACK = "127.0.0.1"
HANDSHAKE_SECONDS = 60.0
JOIN_SECONDS = 60.0


def hold(port: int = 0) -> socket.socket:
    """Take a port, a free one by default, until the socket is closed.

    The kernel gives it to nobody meanwhile; who binds it by its number, with SO_REUSEADDR, gets it all the same.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((LOOPBACK, port))
    return holder


def wait_until_sent(sock: socket.socket, seconds: float = 2.0) -> None:
    """Wait until the peer's kernel has every byte written so far, so that a reset cannot overtake them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        (unsent,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        if not unsent:
            return
        time.sleep(0.002)


def reset(sock: socket.socket) -> None:
    """Close with RST, after what was written has arrived."""
    with contextlib.suppress(OSError, ValueError):
        wait_until_sent(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close(sock: socket.socket) -> None:
    """Send FIN. ``SSLSocket.shutdown`` would drop the TLS layer under a reading thread, hence the base method."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)


def interrupt(sock: socket.socket) -> None:
    """Wake whatever thread is blocked on ``sock``."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Server:
    """Accepts on 127.0.0.1, one thread a connection. ``port`` survives ``stop`` and ``start``."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.port = port
        self.tls = tls
        self.connections = 0
        self.tls_failures: list[str] = []
        self.stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._errors: list[BaseException] = []
        self._guard = threading.Lock()

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, as in a reference."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    def start(self) -> Self:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, self.port))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self.stopping.clear()
        self._listener = listener
        self._spawn(self._accept, listener)
        return self

    def stop(self) -> None:
        """Close everything and join; raises the first unexpected error of a connection thread."""
        self.stopping.set()
        if self._listener is not None:
            interrupt(self._listener)
            self._listener.close()
            self._listener = None
        self._interrupt_all()
        self._join_all()
        errors, self._errors = self._errors, []
        if errors:
            raise errors[0]

    def _interrupt_all(self) -> None:
        with self._guard:
            for sock in self._sockets:
                interrupt(sock)

    def _join_all(self) -> None:
        deadline = time.monotonic() + JOIN_SECONDS
        while self._threads:
            thread = self._threads.pop()
            while thread.is_alive() and time.monotonic() < deadline:
                # Again each round: a thread may have opened a socket after the first sweep.
                self._interrupt_all()
                thread.join(0.05)
            if thread.is_alive():
                raise RuntimeError(f"{type(self).__name__}: thread {thread.name} did not end")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def drop_connections(self) -> int:
        """Shut every open connection, as a crashing server does; returns how many there were."""
        with self._guard:
            sockets = list(self._sockets)
        for sock in sockets:
            interrupt(sock)
        return len(sockets)

    @property
    def open_connections(self) -> int:
        with self._guard:
            return len(self._sockets)

    def serve(self, sock: socket.socket) -> None:
        """Talk to one peer; the caller closes the socket."""
        raise NotImplementedError

    def track(self, sock: socket.socket) -> None:
        """Have ``stop`` interrupt this socket too."""
        with self._guard:
            self._sockets.add(sock)

    def untrack(self, sock: socket.socket) -> None:
        with self._guard:
            self._sockets.discard(sock)
        sock.close()

    def _spawn(self, target: Callable[..., object], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name=f"{type(self).__name__}:{self.port}", daemon=True)
        with self._guard:
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
            thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.track(sock)
            with self._guard:
                self.connections += 1
            self._spawn(self._run, sock)

    def _run(self, raw: socket.socket) -> None:
        sock = raw
        try:
            if self.tls is not None:
                sock = self._handshake(raw, self.tls)
            self.serve(sock)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            pass
        except OSError as broken:
            # A socket that stop() or a fault closed under the thread is an expected end.
            if sock.fileno() >= 0 and not self.stopping.is_set():
                self._errors.append(broken)
        except Exception as unexpected:
            self._errors.append(unexpected)
        finally:
            self.untrack(sock)
            self.untrack(raw)

    def _handshake(self, raw: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        raw.settimeout(HANDSHAKE_SECONDS)
        wrapped = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        self.track(wrapped)
        try:
            wrapped.do_handshake()
        except OSError as refused:
            self.tls_failures.append(str(refused))
            self.untrack(wrapped)
            raise
        wrapped.settimeout(None)
        return wrapped
