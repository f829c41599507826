"""Types of fields that say more than str or float: words of closed lists, and bounds that decoding checks."""

from typing import Annotated, Literal

import msgspec

from pyrepl3_schemas.constants import MAX_ID_CHARS
from pyrepl3_schemas.executor_config import MAX_SECONDS

type ResultMode = Literal["last_expr_or_assign", "last_expr", "none"]
type CancelReason = Literal["cancelled", "timeout", "interrupt"]
type StreamName = Literal["stdout", "stderr"]
type ErrorKind = Literal["exception", "compilation", "timeout", "cancelled", "limit", "protocol"]

# Answers carry the id of what they answer, twice in a complaint, and must fit the smallest frame.
type Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)]
# A NaN passes neither bound, so a clock on either side never meets one.
type Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
type TimeLimit = Annotated[float, msgspec.Meta(gt=0, le=MAX_SECONDS)]
type Bytes = Annotated[int, msgspec.Meta(ge=0)]
type Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
