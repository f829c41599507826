# %% validated models
from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError, computed_field, field_validator
# %%
class Address(BaseModel):
    street: str
    zip: Annotated[str, Field(pattern=r"^\d{5}$")]
# %%
class Person(BaseModel):
    name: str
    born: date
    kind: Literal["a", "b"] = "a"
    home: Address
    tags: list[str] = []

    @field_validator("name")
    @classmethod
    def stripped(cls, value):
        return value.strip()

    @computed_field
    @property
    def label(self) -> str:
        return f"{self.name} ({self.kind})"
# %%
home = Address(street="Main 1", zip="12345")
ada = Person(name=" Ada ", born="1815-12-10", home=home)
# %%
try:
    Address(street="x", zip="bad")
except ValidationError as error:
    problems = error.error_count()
# %%
ada.tags.append("first")
dumped = ada.model_dump_json()
back = Person.model_validate_json(dumped)
# %%
assert ada.home is home and back == ada and type(back) is Person
label = back.label
