# %% tables without classes
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert, select

metadata = MetaData()
items = Table("items", metadata, Column("id", Integer, primary_key=True), Column("name", String(20)))
# %%
engine = create_engine("sqlite:///items.db")
metadata.drop_all(engine)
metadata.create_all(engine)
# %%
with engine.begin() as connection:
    connection.execute(items.delete())
    connection.execute(insert(items), [{"name": "a"}, {"name": "b"}])
# %%
query = select(func.count()).select_from(items)
with engine.connect() as connection2:
    count = connection2.execute(query).scalar_one()
del connection, connection2
# %%
text = str(query)
assert metadata.tables["items"] is items
