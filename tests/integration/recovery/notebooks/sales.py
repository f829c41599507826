# %% sales by region
import numpy as np
import pandas as pd

pd.set_option("display.max_rows", 12)
rng = np.random.default_rng(1)
df = pd.DataFrame({
    "region": pd.Categorical(["n", "s", "e", "w"] * 6),
    "day": pd.date_range("2024-01-01", periods=24),
    "units": rng.integers(1, 50, 24),
    "price": rng.random(24).round(2),
})
# %%
df["revenue"] = df.units * df.price
same = df
# %%
by_region = df.groupby("region", observed=True)
totals = by_region["revenue"].sum()
# %%
wide = df.pivot_table(index=df.day.dt.month, columns="region", values="units", aggfunc="sum", observed=True)
df.attrs["source"] = "made up"
# %%
same.loc[same.units > 40, "units"] = 40
joined = df.merge(totals.rename("total"), left_on="region", right_index=True)
# %%
frames = {"raw": df, "joined": joined}
assert frames["raw"] is same
ranked = joined.sort_values(["total", "revenue"], ascending=False).head(5)
