# %% resampling
import pandas as pd

index = pd.date_range("2024-03-01", periods=60, freq="h", tz="UTC")
series = pd.Series(range(60), index=index, name="load", dtype="float64")
# %%
daily = series.resample("D").mean()
rolling = series.rolling(5)
# %%
smooth = rolling.mean()
series.iloc[3] = float("nan")
# %%
multi = pd.DataFrame({"a": [1, 2, 3]}, index=pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)], names=["k", "n"]))
strings = pd.Series(["a", None, "c"], dtype="string")
# %%
filled = series.ffill()
stacked = pd.concat({"raw": series, "filled": filled}, axis=1)
pd.options.display.precision = 3
# %%
berlin = series.tz_convert("Europe/Berlin")
span = berlin.index[-1] - berlin.index[0]
