"""Echo on stdin and stdout, run as a script: a worker's loop with no work in it."""

import asyncio
import os


async def main() -> None:
    """Send back what comes, until the input ends."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def readable() -> None:
        data = os.read(0, 1 << 18)
        if not data:
            loop.remove_reader(0)
            ended.set_result(None)
            return
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    loop.add_reader(0, readable)
    await ended


if __name__ == "__main__":
    asyncio.run(main())
