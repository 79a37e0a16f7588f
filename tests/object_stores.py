"""Buckets for tests: a server's, opened as the product opens them, with short waits."""

import threading
from collections.abc import Callable

from support.s3 import MotoS3, VersityS3, contents

from epoch_oci.stores.backends.object_store import ObjectStoreBackend
from epoch_oci.stores.backends.object_streams import Patience
from epoch_oci.stores.buckets import BucketOptions, open_bucket
from epoch_oci.stores.epoch_store import EpochStore

QUICK = Patience(attempts=3, first=0.01, longest=0.05, settle=0.05)
Server = MotoS3 | VersityS3


class Bucket:
    """A fresh bucket of a server."""

    def __init__(self, server: Server, **options: object) -> None:
        self.server = server
        self.name = server.make_bucket()
        self.client = server.client()
        self.warnings: list[str] = []
        self._options = options

    def options(self, **more: object) -> BucketOptions:
        given = {"environ": self.server.environ(self.name), "patience": QUICK, "warn": self.warnings.append}
        return BucketOptions(**{**given, **self._options, **more})

    def backend(self, word: str = "s3://", **more: object) -> ObjectStoreBackend:
        """Another client of the place."""
        return open_bucket(word, self.options(**more))[0]

    def store(self, word: str = "s3://", **more: object) -> EpochStore:
        return EpochStore(*open_bucket(word, self.options(**more)))

    def listing(self) -> dict[str, tuple[object, ...]]:
        """All that is there, uploads that were left open included."""
        return contents(self.client, self.name)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, content: bytes = b"") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)


def in_threads(count: int, act: Callable[[int], object]) -> None:
    """Run ``act(0)`` to ``act(count - 1)`` at the same moment; raises what the first to fail raised."""
    start = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        start.wait()
        try:
            act(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
