# %% a seeded queue simulation
import heapq
import itertools
import random
import statistics

random.seed(2024)
own = random.Random(7)
# %%
arrivals = [round(random.expovariate(0.5), 4) for _ in range(20)]
ids = itertools.count(1)
# %%
heap = []
for arrival in arrivals:
    heapq.heappush(heap, (arrival, next(ids)))
# %%
def serve(heap, rng=own):
    when, who = heapq.heappop(heap)
    return who, when + rng.random()

served = [serve(heap) for _ in range(8)]
# %%
waits = {who: when for who, when in served}
mean = statistics.fmean(waits.values())
# %%
random.shuffle(arrivals)
pick = random.choice(arrivals)
# %%
served += [serve(heap) for _ in range(4)]
last_id = next(ids)
state_after = own.getstate()
