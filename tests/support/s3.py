"""S3 servers on loopback: moto's in this process, with faults on request, and the Versity gateway where it is there.

    with MotoS3() as server:                                # or the shared one: ``shared_moto()``
        bucket = server.make_bucket()
        server.environ(bucket)                              # EPOCH_S3_* for it
        server.client()                                     # boto3, to look at what is there with other eyes
        server.add(answers("PUT", 503, "SlowDown", times=2))

``MotoS3(conditions="ignored")`` passes over ``If-Match`` and ``If-None-Match`` without a word, ``"refused"`` says that
it does not know them. Buckets are shared by all servers of the process, as moto keeps them. Requests are handled one
after another, so that a conditional write is atomic; bodies are sent side by side.
"""

import atexit
import contextlib
import functools
import io
import re
import shutil
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from support.net import LOOPBACK, hold
from support.peers import SEARCH_PATH

ACCESS_KEY, SECRET_KEY, REGION = "epoch-test-access", "s3-secret-canary-7f1d0c", "us-east-1"
START_SECONDS = 60.0
CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")


@dataclass(frozen=True)
class Request:
    """What a client asked; ``headers`` by lower-case name."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What it is told. Fewer bytes in ``body`` than ``length`` says are a connection that breaks."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    length: int | None = None


Handler = Callable[[Request], Answer]


@dataclass
class Fault:
    """Does something else instead of handling what ``match`` picks, ``times`` times (None: always)."""

    match: Callable[[Request], bool]
    act: Callable[[Request, Handler], Answer]
    times: int | None = None
    fired: int = 0


def error_body(code: str, extra: str = "") -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>as asked</Message>{extra}</Error>'.encode()


def answers(
    method: str, status: int, code: str, *, times: int | None = None, path: str = "", query: str = "", extra: str = ""
) -> Fault:
    """Answer an error instead; ``path`` and ``query`` are patterns that must occur."""

    def act(request: Request, handle: Handler) -> Answer:
        body = b"" if request.method == "HEAD" else error_body(code, extra)
        return Answer(status, {"Content-Type": "application/xml"}, body)

    return Fault(_matcher(method, path, query), act, times)


def says(
    body: bytes,
    *,
    status: int = 200,
    kind: str = "text/html",
    path: str = "",
    query: str = "",
    times: int | None = None,
) -> Fault:
    """Answer every GET, or those in which ``path`` and ``query`` occur, with something of one's own."""
    return Fault(
        _matcher("GET", path, query), lambda request, handle: Answer(status, {"Content-Type": kind}, body), times
    )


def redirects(method: str, url: str, status: int = 307) -> Fault:
    return Fault(_matcher(method, "", ""), lambda request, _: Answer(status, {"Location": url + request.path}, b""))


def cuts(after: int, *, path: str, times: int | None = None) -> Fault:
    """Break the connection after so many bytes of an object."""

    def act(request: Request, handle: Handler) -> Answer:
        answer = handle(request)
        return Answer(answer.status, answer.headers, answer.body[:after], len(answer.body))

    return Fault(_matcher("GET", path, ""), act, times)


def before(match: Callable[[Request], bool], act: Callable[[], object], *, times: int | None = 1) -> Fault:
    """Let something happen just before a request is handled."""

    def run(request: Request, handle: Handler) -> Answer:
        act()
        return handle(request)

    return Fault(match, run, times)


def _matcher(method: str, path: str, query: str) -> Callable[[Request], bool]:
    def match(request: Request) -> bool:
        found = re.search(path, request.path) and re.search(query, request.query)
        return request.method == method and bool(found)

    return match


class _Server:
    """What both kinds of server have."""

    port: int

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def environ(self, bucket: str, **more: str) -> dict[str, str]:
        """The variables by which Epoch finds the bucket."""
        return {
            "EPOCH_S3_ENDPOINT": self.url,
            "EPOCH_S3_ACCESS_KEY": ACCESS_KEY,
            "EPOCH_S3_SECRET_KEY": SECRET_KEY,
            "EPOCH_S3_BUCKET": bucket,
            **more,
        }

    def client(self) -> Any:
        return boto_client(self.url)

    def make_bucket(self) -> str:
        name = f"b{uuid4().hex[:16]}"  # no hyphen: obstore escapes it for Google, and moto takes that for the name
        self.client().create_bucket(Bucket=name)
        return name


@functools.cache
def boto_client(url: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}, proxies={}),
        )


def contents(client: Any, bucket: str) -> dict[str, tuple[object, ...]]:
    """Every object by name with size, tag and time, and every upload in parts that was left open."""
    found: dict[str, tuple[object, ...]] = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", ()):
            found[item["Key"]] = (item["Size"], item["ETag"], item["LastModified"])
    for item in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        found[f"upload {item['UploadId']}"] = (item["Key"],)
    return found


class MotoS3(_Server):
    """moto's S3 in threads of this process; see the module."""

    def __init__(self, *faults: Fault, conditions: str = "heeded") -> None:
        self.conditions = conditions
        self.faults = list(faults)
        self.requests: list[Request] = []
        self._handling = threading.RLock()
        self._guard = threading.Lock()

    def add(self, *faults: Fault) -> None:
        self.faults.extend(faults)

    def clear(self) -> None:
        """No more faults, and nothing has been asked."""
        self.faults.clear()
        self.requests.clear()

    def assert_fired(self) -> None:
        silent = [fault for fault in self.faults if not fault.fired]
        assert not silent, f"faults that never fired: {silent}"

    def start(self) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
            from werkzeug.serving import WSGIRequestHandler, make_server

            class Silent(WSGIRequestHandler):
                def log(self, *args: object) -> None: ...

            self._app = DomainDispatcherApplication(create_backend_app)
            self._server = make_server(LOOPBACK, 0, self._serve, threaded=True, request_handler=Silent)
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="moto", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {name[5:].replace("_", "-").lower(): text for name, text in environ.items() if name[:5] == "HTTP_"}
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        request = Request(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), headers, body)
        with self._guard:
            self.requests.append(request)
            fault = next((item for item in self.faults if item.times != item.fired and item.match(request)), None)
            if fault is not None:
                fault.fired += 1
        handle = functools.partial(self._handle, environ)
        answer = fault.act(request, handle) if fault is not None else handle(request)
        length = len(answer.body) if answer.length is None else answer.length
        kept = [(name, text) for name, text in answer.headers.items() if name.lower() != "content-length"]
        if request.method == "HEAD" and "Content-Length" in answer.headers:
            kept.append(("Content-Length", answer.headers["Content-Length"]))
        else:
            kept.append(("Content-Length", str(length)))
        start_response(f"{answer.status} X", kept)
        return [answer.body]

    def _handle(self, environ: dict[str, Any], request: Request) -> Answer:
        conditional = any(environ.get(name) for name in CONDITIONS) and request.method == "PUT"
        if conditional and self.conditions == "refused":
            return Answer(501, {"Content-Type": "application/xml"}, error_body("NotImplemented"))
        seen = {**environ, "wsgi.input": io.BytesIO(request.body)}
        if self.conditions == "ignored":
            for name in CONDITIONS:
                seen.pop(name, None)
        told: list[Any] = []

        def take(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], None]:
            told[:] = [status, headers]
            return lambda _: None

        with self._handling:
            result = self._app(seen, take)
            body = b"".join(result)
            with contextlib.suppress(AttributeError):
                result.close()
        return Answer(int(told[0].split()[0]), dict(told[1]), body)


@functools.cache
def shared_moto() -> MotoS3:
    """One server for all tests that want no faults; it ends with the process."""
    server = MotoS3().start()
    atexit.register(server.stop)
    return server


class VersityS3(_Server):
    """The Versity S3 gateway over a directory: a server that is no emulator, and checks signatures."""

    def __init__(self, binary: str, directory: Path) -> None:
        self.binary, self.directory = binary, directory
        self.log = directory / "versitygw.log"

    def start(self) -> Self:
        root = self.directory / "buckets"
        root.mkdir()
        self._held = hold()
        self.port = self._held.getsockname()[1]
        words = ["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION, "--port", self.address]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [self.binary, *words, "--quiet", "posix", str(root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"HOME": str(self.directory)},
                cwd=self.directory,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(60)
        self._held.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((LOOPBACK, self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self.log.read_text("utf-8", "replace")) from None
                time.sleep(0.02)


def find_versity() -> str | None:
    """The gateway's program on the search path, None when it is not there."""
    return shutil.which("versitygw", path=SEARCH_PATH)


@functools.cache
def _temporary_versity(binary: str) -> VersityS3:
    import tempfile

    directory = tempfile.TemporaryDirectory(prefix="versity-")
    atexit.register(directory.cleanup)
    server = VersityS3(binary, Path(directory.name)).start()
    atexit.register(server.stop)
    return server


def shared_servers() -> Iterator[tuple[str, Callable[[], MotoS3 | VersityS3]]]:
    """Every kind of server that can run here, by name; each is started when it is first asked for."""
    yield "moto", shared_moto
    if (binary := find_versity()) is not None:
        yield "versity", functools.partial(_temporary_versity, binary)
