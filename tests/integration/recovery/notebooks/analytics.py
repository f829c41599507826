# %% duckdb in memory
import duckdb

con = duckdb.connect(":memory:")
# %%
con.execute("create table t (k varchar, v integer)")
con.execute("insert into t values ('a', 1), ('b', 2), ('a', 3)")
rows = con.execute("select k, sum(v) from t group by k order by k").fetchall()
# %%
def total(connection=con):
    return connection.execute("select sum(v) from t").fetchone()[0]

first = total()
# %%
con.execute("update t set v = v + 1")
second = total()
# %%
places = {"main": con}
assert places["main"] is con and (first, second) == (6, 9)
