"""A repository read from somebody who has a copy of it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from epoch_oci.errors import AccessError, ContentError, NetworkError, NotFoundError, PolicyError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import Content, Source

_Result = TypeVar("_Result")
_ITS_OWN = (AccessError, ContentError, NetworkError, NotFoundError, PolicyError)
"""What may be wrong with a mirror and not with what it mirrors."""


class Mirror:
    """As `origin`, with the bytes that `mirror` has.

    What a tag holds is the origin's to say, for a mirror may be behind; only while that is away its word is taken,
    with a warning. All else is asked for by digest, and held to it.
    """

    def __init__(self, origin: Source, mirror: Source, warn: Callable[[str], None]) -> None:
        self._origin, self._mirror, self._warn = origin, mirror, warn

    @property
    def where(self) -> str:
        """As `Source.where`: what was asked for, not who answers."""
        return self._origin.where

    @property
    def called(self) -> str:
        """The repository that answers."""
        return self._mirror.where

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`."""
        if ":" in name:
            return self._mirror.resolve(name)
        try:
            return self._origin.resolve(name)
        except NetworkError as error:
            document = self._mirror.resolve(name)
            self._warn(f"{self.where} is away ({error.message}); {name} is what {self.called} says it is")
            return document

    def has(self, target: Descriptor) -> bool:
        """As `Source.has`."""
        return self._mirror.has(target)

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        return self._mirror.content(target)


def by_turns(sources: Sequence[Source], act: Callable[[Source], _Result], warn: Callable[[str], None]) -> _Result:
    """What `act` makes of the first source that serves; one that does not is told of, and the next one goes on.

    Raises what the last one raises, and at once what is not a mirror's fault.
    """
    for source in sources[:-1]:
        try:
            return act(source)
        except _ITS_OWN as error:
            if error.is_final:
                raise
            who = source.called if isinstance(source, Mirror) else source.where
            warn(f"the mirror {who} does not serve: {error.message}")
    return act(sources[-1])
