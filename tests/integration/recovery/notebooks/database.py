# %% an in-memory database
import sqlite3

db = sqlite3.connect(":memory:", check_same_thread=False)
db.row_factory = sqlite3.Row
# %%
db.execute("create table parts (id integer primary key, name text, price real)")
_ = db.executemany("insert into parts (name, price) values (?, ?)", [("nut", 0.1), ("bolt", 0.25), ("gear", 7.5)])
db.commit()
# %%
def cheap(limit, connection=db):
    return [row["name"] for row in connection.execute("select name from parts where price < ?", (limit,))]

found = cheap(1)
# %%
class Repository:
    def __init__(self, connection):
        self.connection = connection
        self.log = []

    def raise_prices(self, factor):
        self.connection.execute("update parts set price = price * ?", (factor,))
        self.connection.commit()
        self.log.append(factor)

repository = Repository(db)
# %%
repository.raise_prices(2)
dearest = tuple(db.execute("select name, max(price) from parts").fetchone())
# %%
assert repository.connection is db
db.execute("create index by_name on parts (name)")
total = db.execute("select sum(price) from parts").fetchone()[0]
db.commit()
