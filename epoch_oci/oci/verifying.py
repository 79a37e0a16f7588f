"""The only code that compares digests."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from epoch_oci.errors import ContentError, counted
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest

BLOCK = 512 << 10
"""Bytes moved at a time. Larger ones win nothing, and each thread's heap grows to several of them."""

_EMPTY = Digest.of(b"")


class ByteReader(Protocol):
    """Anything with `read`; returns b"" at the end, and may return fewer bytes than asked for."""

    def read(self, size: int = -1, /) -> bytes: ...  # noqa: D102


class VerifyingReader:
    """Reads `content` and vouches for it: what has been read to its end is `target`, byte for byte.

    Raises ContentError before the last byte is handed out: DIGEST when the bytes are not the ones named, SIZE when
    there are more. Fewer bytes raise SIZE at the end. So whoever waits for the full length never gets a wrong blob.
    With a `seal`, the BLAKE3 of bytes that had the digest when they were read before, these are to be the same bytes.
    """

    def __init__(
        self, content: ByteReader, target: Descriptor, what: str | None = None, *, seal: bytes | None = None
    ) -> None:
        self._content = content
        self._target = target
        self._what = what or target.title or str(target.digest)
        self._seal = seal
        self._hasher = target.digest.hasher() if seal is None else sealer()
        self._left = target.size
        # Nothing will be read of it, so it has to be right from the start.
        if target.size == 0:
            self._finish()

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes (at most a block where `size` is negative)."""
        if self._left == 0 or size == 0:
            return b""
        wanted = BLOCK if size < 0 else size
        block = self._content.read(min(wanted, self._left))
        if not block:
            short = self._target.size - self._left
            raise ContentError(
                f"{self._what} ended after {short} of {counted(self._target.size, 'byte')}",
                code="SIZE",
                object=str(self._target.digest),
            )
        # A reader that gives more than it was asked for is one that lies about its length.
        if len(block) > self._left:
            raise self._too_long()
        self._hasher.update(block)
        self._left -= len(block)
        if self._left == 0:
            self._finish()
        return block

    def blocks(self, size: int = BLOCK) -> Iterator[bytes]:
        """All of it, block by block."""
        while block := self.read(size):
            yield block

    def exhaust(self) -> None:
        """Read all of it for its hash alone."""
        for _ in self.blocks():
            pass

    def so_far(self) -> Digest:
        """The digest of what has been read, where there is no seal."""
        return Digest(self._target.digest.algorithm, self._hasher.hexdigest())

    def _finish(self) -> None:
        # Trailing bytes are looked for before the last block is handed out (reliability D3).
        if self._content.read(1):
            raise self._too_long()
        self._judge()

    def _judge(self) -> None:
        if self._seal is None:
            check(self._target.digest, self.so_far(), self._what)
        elif self._hasher.digest() != self._seal:
            changed = f"{self._what} is not what it was when its digest was taken"
            raise ContentError(changed, code="DIGEST", object=str(self._target.digest))

    def _too_long(self) -> ContentError:
        return ContentError(
            f"{self._what} has more than the {counted(self._target.size, 'byte')} declared",
            code="SIZE",
            object=str(self._target.digest),
        )


def sealer() -> Any:
    """A hasher for seals: as strong as SHA-256, at a fifth of its price."""
    from blake3 import blake3  # most runs take no seal

    return blake3()


class LearningReader(VerifyingReader):
    """As VerifyingReader, of content whose digest nobody can name yet: `learn` is told it before the last byte.

    The size is held as ever. What vouches for the bytes is what they are decoded from, which `content` verifies.
    """

    def __init__(self, content: ByteReader, target: Descriptor, what: str, learn: Callable[[Digest], None]) -> None:
        self._learn = learn
        super().__init__(content, target, what)

    def _judge(self) -> None:
        self._learn(self.so_far())


def read_digest(content: ByteReader, algorithm: str = "sha256") -> Digest:
    """The digest of all that `content` has."""
    hasher = hashlib.new(algorithm)
    while block := content.read(BLOCK):
        hasher.update(block)
    return Digest(algorithm, hasher.hexdigest())


def check(expected: Digest, actual: Digest, what: str) -> None:
    """Raise ContentError (DIGEST) unless the two are equal; `what` names the content."""
    if expected != actual:
        raise ContentError(f"{what} has digest {actual}, expected {expected}", code="DIGEST", object=str(expected))


def check_bytes(content: bytes, expected: Descriptor, what: str) -> bytes:
    """`content` if it is what `expected` names. Raises ContentError (SIZE, DIGEST)."""
    # Size first: a wrong one needs no hashing (image-spec, descriptor.md, "Verification").
    if len(content) != expected.size:
        raise ContentError(
            f"{what} is {counted(len(content), 'byte')}, expected {expected.size}",
            code="SIZE",
            object=str(expected.digest),
        )
    hasher = expected.digest.hasher()
    hasher.update(content)
    check(expected.digest, Digest(expected.digest.algorithm, hasher.hexdigest()), what)
    return content


def empty_problem(digest: Digest, size: int) -> str | None:
    """Why a digest and a size cannot belong together: empty content has one digest, and no other content has it."""
    # A digest that cannot fit its size is found before a byte is asked for.
    if digest.algorithm != "sha256" or (size == 0) == (digest == _EMPTY):
        return None
    return f"{digest} is not the digest of 0 bytes" if size == 0 else f"{digest} is the digest of 0 bytes, not {size}"
