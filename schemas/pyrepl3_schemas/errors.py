"""Protocol errors. The type says who broke the protocol: this process, or the peer."""

from typing import Final

_REASON_LIMIT: Final = 400
"""Characters that are kept of a reason, since a peer chooses part of the text."""


class ProtocolError(Exception):
    """A rule of the protocol was broken.

    Args:
        reason: what is wrong, in words; only the first 400 characters are kept.
        offset: where in the stream the bad frame is, in bytes since the connection began; None where
            the error is not in the bytes, such as a message out of order.

    Only subclasses are raised; catch this class to get both.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        """Keep both arguments in `args`, so that the error can be pickled."""
        reason = reason[:_REASON_LIMIT]
        super().__init__(reason, offset)
        self.reason = reason
        self.offset = offset

    def __str__(self) -> str:
        """Return the reason, and the offset where there is one."""
        return self.reason if self.offset is None else f"{self.reason} (at byte {self.offset})"


class LocalProtocolError(ProtocolError):
    """This process tried to send what the protocol forbids. Nothing was sent."""


class ValueTooLarge(LocalProtocolError):  # noqa: N818 - an error of its base's kind
    """A value has a plain form that does not fit into a frame, or is met too often in it."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids. The connection is of no further use."""
