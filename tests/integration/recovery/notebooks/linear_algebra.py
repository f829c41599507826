# %% power iteration
import numpy as np

rng = np.random.default_rng(5)
matrix = rng.random((6, 6))
matrix = matrix + matrix.T
# %%
class Iteration:
    def __init__(self, matrix):
        self.matrix = matrix
        self.vector = np.ones(len(matrix))
        self.history = []
    def step(self):
        self.vector = self.matrix @ self.vector
        self.vector /= np.linalg.norm(self.vector)
        self.history.append(float(self.vector @ self.matrix @ self.vector))

iteration = Iteration(matrix)
# %%
for _ in range(5):
    iteration.step()
# %%
before = iteration.vector.copy()
step = iteration.step
step()
# %%
largest = iteration.history[-1]
residual = matrix @ iteration.vector - largest * iteration.vector
assert iteration.matrix is matrix
