"""The limit for how many objects a frame may become, since its length alone does not limit memory.

In `[[]] * n` each item is one byte of the frame, but 88 bytes of the reader's memory, so a frame of the
usual limit could take 5 GB. Numbers are not counted: they take at most four times their bytes.
"""

import re
from functools import cache
from typing import Final

_BYTES_PER_OBJECT: Final = 8
"""A frame may hold one object for so many bytes of the longest frame."""
MIN_OBJECT_LIMIT: Final = 1024 * 1024
"""Objects that any frame may hold, so a frame of at most so many bytes need not be checked."""
_FIRST_STEPS: Final = 64
"""Objects that are read one by one, before the bytes are counted."""

# By the first byte, as MessagePack's specification has them. The lengths stand in the bytes after it.
_LENGTHS: Final = {
    0xC4: 1, 0xC5: 2, 0xC6: 4,  # bin
    0xC7: 1, 0xC8: 2, 0xC9: 4,  # ext, and a byte of type
    0xD9: 1, 0xDA: 2, 0xDB: 4,  # str
}  # fmt: skip
_SIZES: Final = {
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,  # fixext
    0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,  # array and map, whose items follow as objects of their own
}  # fmt: skip
_HEADS: Final = bytes(
    0x80 <= byte <= 0xBF or byte in _LENGTHS or byte in _SIZES for byte in range(256)
)  # 1 for each byte that can be the first of an object; many bytes inside an object are such too


def max_objects(max_frame_bytes: int) -> int:
    """Return how many arrays, maps, texts, byte strings and extensions one frame may hold.

    Args:
        max_frame_bytes: how long a frame may be.
    """
    return max(MIN_OBJECT_LIMIT, max_frame_bytes // _BYTES_PER_OBJECT)


def has_more_objects(data: bytes | memoryview, most: int) -> bool:
    """Return whether MessagePack data holds more than `most` objects; in broken data, before the fault.

    This costs nothing for data of up to `most` bytes, and usually a tenth of the time of decoding for more.
    At worst, for tens of megabytes of small maps or of pairs of floats, it takes some seconds.

    Args:
        data: encoded values, one after the other.
        most: how many objects are allowed.
    """
    if len(data) <= most:
        return False
    data = bytes(data)
    count = _count_objects(data, most, _FIRST_STEPS)
    if count is None:
        # There cannot be more objects than bytes that can be the first of one.
        if _count_head_bytes(data) <= most:
            return False
        count = _count_objects(data, most, len(data))
    return count is None


def _count_objects(data: bytes, most: int, max_steps: int) -> int | None:
    """Count objects in order; return None if there are more than `most`, or after `max_steps` steps."""
    skip_numbers, skip_singles = _numbers_pattern().match, _small_objects_pattern().match
    count = at = 0
    end = len(data)
    for _ in range(max_steps):
        numbers = skip_numbers(data, at)
        if numbers is not None:
            at = numbers.end()
        if at >= end:
            return count
        head = data[at]
        if head <= 0x9F and data[at + 1 : at + 2] <= b"\x9f" and (singles := skip_singles(data, at)):
            after = singles.end()
            count += _count_head_bytes(data[at:after])
            at = after
        else:
            count += 1
            if head <= 0x9F:
                at += 1
            elif head <= 0xBF:
                at += 1 + (head & 0x1F)
            elif head in _SIZES:
                at += _SIZES[head]
            elif head in _LENGTHS:
                start = at + 1 + _LENGTHS[head]
                at = start + int.from_bytes(data[at + 1 : start]) + (0xC7 <= head <= 0xC9)
            else:
                return count - 1  # not MessagePack: the decoder will say so
        if count > most:
            return None
    return None


def _count_head_bytes(data: bytes) -> int:
    return int.from_bytes(data.translate(_HEADS)).bit_count()


@cache  # few frames are long enough to need it
def _numbers_pattern() -> re.Pattern[bytes]:
    # Nil, booleans and small integers; then all wider numbers, in runs, which is three times as fast.
    return re.compile(
        rb"(?:[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]++|(?:\xcb........)++|(?:[\xcd\xd1]..)++|(?:[\xce\xd2\xca]....)++"
        rb"|(?:[\xcc\xd0].)++|(?:[\xcf\xd3]........)++)*+",
        re.DOTALL,
    )


@cache
def _small_objects_pattern() -> re.Pattern[bytes]:
    # Short arrays and maps, with their items as long as these take one byte each.
    return re.compile(rb"[\x00-\x9f\xc0\xc2\xc3\xe0-\xff]++")
