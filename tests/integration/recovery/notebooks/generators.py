# %% lazy streams
import itertools

def numbers(limit):
    for n in range(limit):
        yield n * n

fresh = numbers(4)
# %%
items = iter([10, 20, 30, 40])
head = next(items)
pairs = zip("abc", itertools.cycle([1, 2]))
one = next(pairs)
# %%
class Table:
    def __init__(self, rows):
        self.rows = rows
    def __iter__(self):
        return iter(self.rows)
    def __getattr__(self, name):
        try:
            return [row[name] for row in self.__dict__["rows"]]
        except KeyError as missing:
            raise AttributeError(name) from missing

table = Table([{"a": 1, "b": 2}, {"a": 3, "b": 4}])
# %%
column = table.a
second = next(items)
# %%
table.rows.append({"a": 5, "b": 6})
rest = list(items)
squares = list(fresh)
# %%
remaining = list(pairs)
assert rest == [30, 40] and table.b == [2, 4, 6] and squares == [0, 1, 4, 9]
