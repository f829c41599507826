"""What can go wrong on the wire. The type says who broke the rules: we, or the peer."""

from typing import Final

_REASON_LIMIT: Final = 400
"""Characters of a reason that are kept: a peer chooses part of the text."""


class ProtocolError(Exception):
    """A rule of the protocol was broken.

    Args:
        reason: what was wrong, in words; all but the first 400 characters are dropped.
        offset: position in the byte stream (bytes since the connection began) of the frame at fault,
            or None where no byte is at fault (a message out of turn).

    Only the two subclasses are raised; catch this one.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        """Keep both arguments, so that the error pickles."""
        reason = reason[:_REASON_LIMIT]
        super().__init__(reason, offset)
        self.reason = reason
        self.offset = offset

    def __str__(self) -> str:
        """Say the reason, and the offset where there is one."""
        return self.reason if self.offset is None else f"{self.reason} (at byte {self.offset})"


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol forbids. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids. The connection is of no further use."""
