# %% symbols
import sympy as sp

x, y = sp.symbols("x y", real=True)
n = sp.Symbol("n", integer=True, positive=True)
f = sp.Function("f")
# %%
expr = (x + y) ** 3 * sp.sin(x)
expanded = sp.expand(expr)
# %%
derivative = sp.diff(expr, x)
numeric = sp.lambdify((x, y), derivative)
# %%
matrix = sp.Matrix([[x, 1], [1, y]])
det = matrix.det()
# %%
ode = sp.Eq(f(x).diff(x), f(x))
solution = sp.dsolve(ode)
# %%
matrix[0, 0] = 2
value = round(numeric(0.5, 1.0), 9)
assert sp.Symbol("x", real=True) is x or sp.Symbol("x", real=True) == x
