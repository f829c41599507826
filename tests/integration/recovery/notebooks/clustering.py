# %% k-means and a custom estimator
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans

rng = np.random.RandomState(4)
points = np.vstack([rng.normal(c, 0.2, size=(15, 2)) for c in (0, 2, 4)])
# %%
class Center(BaseEstimator, TransformerMixin):
    def fit(self, X, y=None):
        self.mean_ = X.mean(axis=0)
        return self
    def transform(self, X):
        return X - self.mean_

center = Center().fit(points)
# %%
moved = center.transform(points)
km = KMeans(n_clusters=3, n_init=2, random_state=0)
# %%
labels = km.fit_predict(moved)
sizes = np.bincount(labels)
# %%
more = rng.normal(size=(3, 2))
nearest = km.predict(center.transform(more))
assert isinstance(center, Center)
