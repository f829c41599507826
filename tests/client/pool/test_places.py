"""How many sessions there may be: places go to those who wait in order, and none is lost or kept."""

import asyncio
import random

import pytest

from pyrepl3_client._pool.places import Place, Places

pytestmark = pytest.mark.anyio


async def waiting(places: Places, number: int) -> list[asyncio.Task[Place]]:
    """Have so many wait for a place, one after the other."""
    tasks = [asyncio.ensure_future(places.take()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def test_places_go_to_those_who_wait_in_the_order_in_which_they_came() -> None:
    places = Places(2)
    first, second = await places.take(), await places.take()
    one, two, three = await waiting(places, 3)
    assert (places.taken, places.waiting) == (2, 3)
    first.give_back()
    late = asyncio.ensure_future(places.take())  # comes when one is free, and three were there before
    await asyncio.sleep(0)
    assert [task.done() for task in (one, two, three, late)] == [True, False, False, False]
    first.give_back()  # once more, which gives nothing
    second.give_back()
    await asyncio.sleep(0)
    assert [task.done() for task in (one, two, three, late)] == [True, True, False, False]
    for task in (one, two, three, late):
        (await task).give_back()
    assert (places.taken, places.waiting) == (0, 0)


async def test_who_is_cancelled_while_waiting_is_passed_over() -> None:
    places = Places(1)
    place = await places.take()
    one, two, three = await waiting(places, 3)
    two.cancel()
    await asyncio.wait([two])
    assert places.waiting == 2
    place.give_back()
    (await one).give_back()
    (await three).give_back()
    assert places.taken == 0


async def test_who_is_cancelled_in_the_turn_in_which_it_gets_one_hands_it_on() -> None:
    places = Places(1)
    place = await places.take()
    one, two = await waiting(places, 2)
    place.give_back()
    one.cancel()
    assert (await asyncio.wait([one]))[0].pop().cancelled()
    (await two).give_back()
    assert places.taken == 0


async def test_a_time_limit_that_is_over_when_a_place_comes_loses_none() -> None:
    places = Places(1)
    place = await places.take()

    async def limited() -> None:
        async with asyncio.timeout(0):
            (await places.take()).give_back()

    task = asyncio.ensure_future(limited())
    await asyncio.sleep(0)
    place.give_back()
    await asyncio.wait([task])
    assert isinstance(task.exception(), TimeoutError) or task.exception() is None
    assert places.taken == 0


async def test_who_waits_hears_that_there_are_no_more() -> None:
    places = Places(1)
    place = await places.take()
    tasks = await waiting(places, 3)
    places.refuse(lambda: KeyError("over"))
    for task in tasks:
        with pytest.raises(KeyError, match="over"):
            await task
    with pytest.raises(KeyError):
        await places.take()
    empty = asyncio.ensure_future(places.wait_empty())
    await asyncio.sleep(0)
    assert not empty.done()
    place.give_back()
    await empty
    places.refuse(None)
    (await places.take()).give_back()


@pytest.mark.parametrize("seed", range(20))
async def test_a_herd_that_is_cancelled_at_random_leaves_every_place_free(seed: int) -> None:
    chance, number = random.Random(seed), 3
    places = Places(number)
    inside: set[int] = set()
    served: list[int] = []

    async def use(who: int) -> None:
        place = await places.take()
        try:
            inside.add(who)
            assert len(inside) <= number
            served.append(who)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            inside.discard(who)
            place.give_back()

    tasks = [asyncio.ensure_future(use(who)) for who in range(200)]
    while not all(task.done() for task in tasks):
        chance.choice(tasks).cancel()
        await asyncio.sleep(0)
    assert (places.taken, places.waiting, inside) == (0, 0, set())
    assert served == sorted(served), "somebody was overtaken"
    assert len(served) > 5
