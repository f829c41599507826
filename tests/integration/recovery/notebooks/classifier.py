# %% a pipeline
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3))
y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
# %%
scaler = StandardScaler()
model = LogisticRegression()
pipe = make_pipeline(scaler, model)
# %%
pipe.fit(X, y)
coefficients = model.coef_
# %%
tree = DecisionTreeClassifier(max_depth=3, random_state=1).fit(X, y)
score = tree.score(X, y)
# %%
predicted = pipe.predict(X[:10])
assert pipe.steps[1][1] is model and coefficients is model.coef_
# %%
model.set_params(C=0.5)
refit = pipe.fit(X, y).predict_proba(X[:2])
