"""What can go wrong on the wire. The type says who broke the rules: we, or the peer."""

from typing import Final

_KIND_LIMIT: Final = 400


class ProtocolError(Exception):
    """A rule of the protocol was broken.

    Args:
        reason: what was wrong, in words.
        offset: position in the byte stream (bytes since the connection began) of the frame at fault,
            or None where no byte is at fault (a message out of turn).

    Only the two subclasses are raised; catch this one.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        """Keep both arguments, so that the error pickles."""
        super().__init__(reason, offset)
        self.reason = reason[:_KIND_LIMIT]
        self.offset = offset

    def __str__(self) -> str:
        """Say the reason, and the offset where there is one."""
        return self.reason if self.offset is None else f"{self.reason} (at byte {self.offset})"


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol forbids. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids. The connection is of no further use."""
