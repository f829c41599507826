# %% views, dtypes, settings
import numpy as np

np.random.seed(3)
np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(11)
# %%
grid = np.arange(24.0).reshape(4, 6)
column = grid[:, 2]
block = grid[1:3, 1:4]
# %%
column[:] = -1
noise = rng.normal(size=5)
# %%
records = np.array([(1, "a"), (2, "b")], dtype=[("n", "i4"), ("s", "U3")])
old = np.seterr(divide="ignore")
# %%
items = np.array([[1], [2]], dtype=object)
items2 = np.empty(2, dtype=object)
inner = [1, 2]
items2[0] = items2[1] = inner
# %%
block *= 2
inner.append(3)
legacy = np.random.rand(3)
# %%
masked = np.ma.masked_less(grid, 0)
solution = np.linalg.solve(np.eye(3) * 2, np.ones(3))
assert column[1] == grid[1, 2]
