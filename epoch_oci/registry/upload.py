"""Sending a blob: the push state machine (oci-registries 5.2 to 5.4).

A session that has had part of a body is never sent a body again from its start: after a failure the registry is asked
whether the blob is there after all, and if not how far it got. What it says to have is not sent again, whatever shape
it came in and in whichever run; the rest follows in ranges. Where it does not say, a new session is opened.
"""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, EpochOciError, NetworkError, UsageError
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader
from epoch_oci.registry.http_errors import may_have_acted
from epoch_oci.registry.policy import Attempts, HeldError
from epoch_oci.registry.profiles import Shape
from epoch_oci.registry.transport import Body
from epoch_oci.registry.upload_journal import Claim, UploadJournal, UploadKey
from epoch_oci.registry.upload_ranged import RangedUpload, aside
from epoch_oci.registry.upload_session import (
    Destination,
    DigestRefusedError,
    Session,
    SessionLostError,
    ShapeRefusedError,
    StaleTokenError,
)
from epoch_oci.stores.base import Content, Moving, Sealed

_TOOK_NOTHING = frozenset({429, 503})
"""A body answered so was not looked at."""
# Their last request has no body, so that one can be made again and again.
_KEPT_WHILE_HELD: tuple[Shape, ...] = ("ranged", "stream")
_AHEAD = 2
"""Blocks read before the socket asks for them; each costs its size in memory, for every transfer."""
_WORTH_A_THREAD = 4 * BLOCK
"""Bytes. Less than this is sent before a second thread has been of any help."""


@dataclass(slots=True)
class Upload:
    """One blob on its way into a repository. `journal` is where unfinished uploads are kept for another run."""

    destination: Destination
    content: Content
    journal: UploadJournal | None = None
    _attempts: Attempts = field(init=False)
    _held: bool = False
    _refused: EpochOciError | None = None
    _broken: Session | None = None  # one that a body broke off in
    _kept: int | None = None  # bytes that an earlier run had sent; None before the first body

    def __post_init__(self) -> None:
        self._attempts = Attempts(self.destination.client.settings, self.destination.title)

    def run(self) -> None:
        """Send it. Raises ContentError when the content is not the target, AccessError, NetworkError."""
        try:
            self._run()
        except BaseException:
            if self._broken is not None and not (self.journal is not None and self.journal.knows(self._key)):
                self._broken.cancel()  # nobody will come back to it
            raise

    def _run(self) -> None:
        where = self.destination
        renewed = False
        while (shape := self._shape()) is not None:
            try:
                # Waits only while the registry throttles, and never holds a place during a pause of its own.
                with where.client.settings.pace.body():
                    self._attempt(shape)
                return where.manner.succeeded()
            except ShapeRefusedError as error:
                self._refused = error.refusal
                where.manner.demote(shape)
            except StaleTokenError:
                # A token that is refused anew is no stale one.
                if renewed:
                    raise self._denied() from None
                renewed = True
            except NetworkError as error:
                # Before it is sent again: a source that changed is final, bytes that suffered on the way are not.
                if isinstance(error, DigestRefusedError):
                    self._reread()
                self._held = self._held or isinstance(error, HeldError)
                self._attempts.again(error)
                # The answer to a closing PUT is what gets lost most: Harbor may take minutes to give it (oci-registries
                # 3.5).
                if may_have_acted(error) and where.is_there(self._attempts):
                    return self._forget()
        raise self._unsendable()

    def _shape(self) -> Shape | None:
        """How to try next. A blob that is held back is sent so that the request to be repeated is one without it."""
        manner = self.destination.manner
        if self._held:
            return next((shape for shape in _KEPT_WHILE_HELD if manner.takes(shape)), manner.shape)
        return manner.shape

    @property
    def _key(self) -> UploadKey:
        where = self.destination
        return UploadKey(str(where.client.origin), where.repository, where.target.digest, where.target.size)

    def _attempt(self, shape: Shape) -> None:
        claim = self._claim()
        try:
            upload = self._taken_up(claim)
            self._tell_kept(upload)
            if upload is None and shape == "ranged":
                upload = RangedUpload(self.destination.open(self._attempts), self.content, self._attempts, claim)
            if upload is not None:
                self._send(upload, claim)
            else:
                self._send_whole(shape, claim)
        finally:
            if claim is not None:
                claim.release()

    def _send_whole(self, shape: Shape, claim: Claim | None) -> None:
        """Send it in one request. A session in which it broke off is kept for whoever comes next."""
        session = self.destination.open(self._attempts)
        # Noted before the first byte: a kill in the middle is what it is for.
        if claim is not None:
            claim.note(session.location, 0, at_once=True)
        try:
            if shape == "put":
                session.finish(session.send("PUT", session.closing, self._whole))
            else:
                response = session.send("PATCH", session.location, self._whole)
                session.expect(response, (201, 202, 204))
                session.move(response)
                session.close(self._attempts)
        except BaseException as error:
            passing = not (isinstance(error, NetworkError) and error.status in _TOOK_NOTHING)
            if self._resumable and passing and _can_go_on(error, progressed=True):
                self._broken = session
            else:
                session.cancel()
                _drop(claim)
            raise
        _drop(claim)

    @contextmanager
    def _whole(self) -> Iterator[Body]:
        """The whole content. The last block is held back until the hash is right."""
        target = self.destination.target
        seal = self.content.seal if isinstance(self.content, Sealed) else None
        with (
            self.content.open() as reader,
            _read_ahead(VerifyingReader(reader, target, seal=seal), target.size) as ahead,
        ):
            yield Body(ahead, target.size)

    def _send(self, upload: RangedUpload, claim: Claim | None) -> None:
        """Run it. What another run can go on with is left as it is, and all else is given up."""
        try:
            upload.run()
        except BaseException as error:
            if claim is not None and _can_go_on(error, progressed=upload.progressed):
                upload.note(at_once=True)
            else:
                upload.session.cancel()
                _drop(claim)
            raise
        _drop(claim)

    def _taken_up(self, claim: Claim | None) -> RangedUpload | None:
        """The upload that broke off in this run or an earlier one; None when there is none or it is of no use."""
        entry = claim.entry() if claim is not None else None
        session, self._broken = self._broken, None
        if session is None and entry is None:
            return None
        if session is None and entry is not None:
            session = Session(self.destination, entry.location)
        assert session is not None
        upload = RangedUpload(session, self.content, self._attempts, claim)
        if upload.take_up(entry.offset if entry is not None else 0):
            return upload
        _drop(claim)
        return None

    def _tell_kept(self, upload: RangedUpload | None) -> None:
        """Have the content know how much of it came in an earlier run; what this run goes on with is its own."""
        if upload is not None and self._kept is not None:
            return
        kept = upload.reached if upload is not None else 0
        if isinstance(self.content, Moving) and kept != (self._kept or 0):
            self.content.kept(kept)
        self._kept = kept

    @property
    def _resumable(self) -> bool:
        """Whether the registry can be asked how far it got, and be sent the rest; of what is worth a question."""
        manner = self.destination.manner
        return self.destination.target.size > BLOCK and manner.profile.asks_status and manner.takes("ranged")

    def _claim(self) -> Claim | None:
        """The right to this upload's entry in the journal, where it is worth one: more than a chunk, and resumable."""
        # A blob of one chunk has nothing to go on with.
        worth = self.destination.target.size > self.destination.manner.chunk and self._resumable
        return self.journal.claim(self._key) if self.journal is not None and worth else None

    def _forget(self) -> None:
        """The blob is there: whatever the journal has of it is of no use."""
        if self.journal is not None and self.journal.knows(self._key):
            claim = self.journal.claim(self._key)
            if claim is not None:
                claim.forget()
                claim.release()

    def _reread(self) -> None:
        """Look whether the source is still what it was. Raises ContentError when it is not."""
        with aside(self.content, self.content.size).open() as reader:
            VerifyingReader(reader, self.destination.target).exhaust()

    def _denied(self) -> AccessError:
        where = self.destination
        return AccessError(
            f"pushing {where.target.digest} to {where.place}: 401, whatever is sent along",
            object=where.place,
            hint="ask what these credentials may do there",
        )

    def _unsendable(self) -> EpochOciError:
        if isinstance(self._refused, AccessError):
            return self._refused
        client, target = self.destination.client, self.destination.target
        said = f" ({self._refused.message})" if self._refused is not None else ""
        error = UsageError(
            f"{client.hostname} takes {target.digest} ({target.size} bytes) in no shape{said}",
            object=str(target.digest),
            hint="something between here and the registry limits the size of a request; try --part-size",
        )
        error.request_id = self._refused.request_id if self._refused is not None else None
        return error


def _can_go_on(error: BaseException, *, progressed: bool) -> bool:
    """Whether a session is worth keeping: the line broke or the user stopped it, and nothing was wrong with it.

    A session that is answered with errors alone is given up, or every further run would meet the same.
    """
    if isinstance(error, SessionLostError | DigestRefusedError | ShapeRefusedError | StaleTokenError | HeldError):
        return False
    if isinstance(error, NetworkError):
        return error.retryable and (error.status is None or progressed)
    return not isinstance(error, EpochOciError)


def _drop(claim: Claim | None) -> None:
    if claim is not None:
        claim.forget()


@contextmanager
def _read_ahead(reader: ByteReader, size: int) -> Iterator[ByteReader]:
    """`reader`, read (and so hashed, where it verifies) by a thread of its own while what came before is being sent.

    What `reader` raises is raised in place of the block it was asked for, so no later block is ever handed out.
    """
    if size < _WORTH_A_THREAD:
        yield reader
        return
    ahead = _Ahead(reader)
    try:
        yield ahead
    finally:
        ahead.stop()


class _Ahead:
    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._blocks: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._stopped = self._ended = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def read(self, size: int = -1, /) -> bytes:
        """The next block, whatever its length; `size` is at least BLOCK, or bounds the last one."""
        if self._ended:
            return b""
        block = self._blocks.get()
        if isinstance(block, BaseException):
            raise block
        self._ended = not block
        return block

    def stop(self) -> None:
        """Let the thread end, and wait for it: it must not read from what its owner is about to close."""
        self._stopped = True
        while self._thread.is_alive():
            # It may stand at a full queue, or in a slow read; both end by themselves once there is room.
            try:
                self._blocks.get(timeout=0.05)
            except queue.Empty:
                self._thread.join(0)

    def _run(self) -> None:
        try:
            block = b"-"
            while block and not self._stopped:
                block = self._reader.read(BLOCK)
                self._blocks.put(block)
        except BaseException as error:  # raised again by whoever reads
            self._blocks.put(error)
