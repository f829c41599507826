"""Finds the newest of what is numbered without gaps, where nothing can be searched for."""

from collections.abc import Awaitable, Callable


async def last(exists: Callable[[int], Awaitable[bool]]) -> int:
    """Give the largest number from 1 on that exists, 0 when there is none.

    Asks some `2 * log2(n)` times: by doubling steps, then by halving the gap.

    Args:
        exists: says whether a number exists; if it does, so do all before it.
    """
    low, high = 0, 1
    while await exists(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if await exists(middle):
            low = middle
        else:
            high = middle
    return low
