# %% figures
import matplotlib.pyplot as plt
import numpy as np

plt.rcParams["lines.linewidth"] = 2.5
x = np.linspace(0, 1, 9)
# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(6, 3))
line, = left.plot(x, x ** 2, label="square")
# %%
left.set_title("powers")
_ = right.bar([1, 2, 3], [3, 1, 2])
# %%
line.set_ydata(x ** 3)
left.set_xlabel("x")
# %%
fig.suptitle("both")
assert line.axes is left and left.figure is fig
# %%
fig.savefig("out.png")
plt.close(fig)
