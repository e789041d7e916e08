"""scikit-learn's LogisticRegression, lbfgs, 100 iterations."""

import sys
import time
import warnings

from common import load, report
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

sys.argv.pop()
warnings.simplefilter("ignore", ConvergenceWarning)
images, labels = load("train")
x = images / 255
model = LogisticRegression(max_iter=100)
started = time.perf_counter()
model.fit(x, labels)
report(time.perf_counter() - started, model.coef_.T, model.intercept_)
