"""scikit-learn's SGDClassifier with the logistic loss, its default settings."""

import sys
import time

from common import load, report
from sklearn.linear_model import SGDClassifier

sys.argv.pop()
images, labels = load("train")
x = images / 255
model = SGDClassifier(loss="log_loss", random_state=0, n_jobs=-1)
started = time.perf_counter()
model.fit(x, labels)
report(time.perf_counter() - started, model.coef_.T, model.intercept_)
