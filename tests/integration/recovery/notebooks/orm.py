# %% objects in a database file
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

engine = create_engine("sqlite:///shop.db")
# %%
class Base(DeclarativeBase):
    pass

class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list["Order"]] = relationship(back_populates="customer")

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")
# %%
Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)
# %%
with Session(engine) as s:
    if not s.scalars(select(Customer)).all():
        s.add(Customer(name="Ada", orders=[Order(what="tea"), Order(what="ink")]))
        s.commit()
# %%
with Session(engine) as s:
    found = [o.what for o in s.scalars(select(Order).order_by(Order.id))]
# %%
count = len(found)
assert count == 2
