"""Types of fields narrower than str or float: closed lists of words, and bounds that decoding checks."""

from typing import Annotated, Literal

import msgspec

from pyrepl3_schemas.constants import MAX_FIRST_LINE, MAX_ID_CHARS
from pyrepl3_schemas.executor_config import MAX_SECONDS

type ResultMode = Literal["last_expr_or_assign", "last_expr", "none"]
type CancelReason = Literal["cancelled", "timeout", "interrupt"]
type StreamName = Literal["stdout", "stderr"]
type ChangeKind = Literal["added", "changed", "deleted"]
type ClearMode = Literal["", "now", "wait"]
type ReportPart = Literal["data", "files", "changed", "effects"]
type ProgressStage = Literal["saving", "importing", "restoring"]
type ErrorKind = Literal["exception", "compilation", "timeout", "cancelled", "limit", "protocol"]

# An answer carries the id of its request, an error about it twice; both must fit the smallest frame.
type Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)]
# A NaN is within neither bound, so no timer on either side gets one.
type Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
type TimeLimit = Annotated[float, msgspec.Meta(gt=0, le=MAX_SECONDS)]
type LineNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_FIRST_LINE)]
type Bytes = Annotated[int, msgspec.Meta(ge=0)]
type Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
