# %% memo, counters, decorators
import functools
import operator

calls = []
def traced(function):
    @functools.wraps(function)
    def wrapper(*args):
        calls.append((function.__name__, args))
        return function(*args)
    return wrapper
# %%
def counter():
    count = 0
    def up():
        nonlocal count
        count += 1
        return count
    def peek():
        return count
    return up, peek

up, peek = counter()
up(), up()
# %%
@traced
def area(w, h=2):
    return w * h

double = functools.partial(operator.mul, 2)
small = area(3)
# %%
@functools.lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

fib(20)
# %%
push = calls.append
push("by a built-in bound method")
alias = calls
# %%
up()
area(4, 5)
steps = peek()
# %%
def remember(value, seen=[]):
    seen.append(value)
    return seen

memory = remember(1)
# %%
push("again")
remember(2)
assert alias is calls and memory == [1, 2] and len(calls) == 4
