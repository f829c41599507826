# %% producer and consumer
import asyncio

queue = asyncio.Queue(maxsize=5)
done = asyncio.Event()
results = []
# %%
async def produce(n):
    for each in range(n):
        await queue.put(each)
    await queue.put(None)

async def consume():
    while (item := await queue.get()) is not None:
        results.append(item * item)
    done.set()
# %%
await asyncio.gather(produce(12), consume())
finished = done.is_set()
# %%
gate = asyncio.Semaphore(2)
lock = asyncio.Lock()
async def guarded(n):
    async with gate, lock:
        await asyncio.sleep(0)
        return n + 1
# %%
numbers = await asyncio.gather(*(guarded(n) for n in range(5)))
await queue.put("left over")
# %%
class Ticker:
    def __init__(self, to):
        self.to, self.at = to, 0
    def __aiter__(self):
        return self
    async def __anext__(self):
        if self.at >= self.to:
            raise StopAsyncIteration
        self.at += 1
        return self.at

ticker = Ticker(6)
head = [await anext(ticker) for _ in range(2)]
# %%
tail = [each async for each in ticker]
size = queue.qsize()
