# %% classes that are redefined, inherited, slotted
import abc
import weakref

class Shape(abc.ABC):
    registry = []
    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        Shape.registry.append(cls)
    @abc.abstractmethod
    def area(self): ...
# %%
class Square(Shape):
    __slots__ = ("side",)
    def __init__(self, side):
        self.side = side
    def area(self):
        return self.side ** 2

old = Square(3)
measure = old.area
# %%
class Square(Shape):
    def __init__(self, side):
        self.side = side
    def area(self):
        return self.side * self.side + 0.0

new = Square(3)
# %%
pair = (old, new)
frozen = frozenset([old, new])
look = weakref.ref(new)
# %%
class Named(Square):
    @property
    def title(self):
        return f"{type(self).__name__} {self.side}"
    @classmethod
    def unit(cls):
        return cls(1)
    def area(self):
        return super().area() + 1

named = Named.unit()
parent_area = super(Named, named).area
# %%
old.side = 4
checks = [isinstance(old, Square), isinstance(new, Square), type(old) is type(new), pair[0] is old, look() is new]
assert checks == [False, True, False, True, True]
# %%
areas = [measure(), new.area(), named.area(), parent_area(), len(Shape.registry)]
assert areas == [16, 9.0, 2.0, 1.0, 3]
# %%
class Problem(Exception):
    def __init__(self, code, detail):
        super().__init__(code, detail)
        self.code = code

try:
    raise Problem(3, {"shape": new})
except Problem as problem:
    caught = problem
# %%
try:
    raise caught
except Problem as again:
    same = again is caught and again.args[1]["shape"] is new
assert same
