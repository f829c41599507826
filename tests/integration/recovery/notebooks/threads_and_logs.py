# %% locks, pools, loggers
import logging
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

logging.getLogger("app").setLevel(logging.DEBUG)
log = logging.getLogger("app.core")
lock = threading.Lock()
# %%
class Counter:
    def __init__(self, lock):
        self.lock = lock
        self.value = 0
    def add(self, n):
        with self.lock:
            self.value += n

counter = Counter(lock)
# %%
pool = ThreadPoolExecutor(2)
list(pool.map(counter.add, range(50)))
# %%
jobs = queue.Queue()
for n in range(5):
    jobs.put({"job": n})
first = jobs.get()
# %%
local = threading.local()
local.user = "ada"
ready = threading.Event()
ready.set()
# %%
list(pool.map(counter.add, [1, 2, 3]))
left = jobs.qsize()
# %%
assert counter.lock is lock and counter.value == 1231
answer = pool.submit(pow, 2, 10).result()
