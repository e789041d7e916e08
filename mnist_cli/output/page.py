"""A model as a web page to draw on: one file that needs nothing else."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np

from mnist_cli import files
from mnist_cli.data import loading
from mnist_cli.data.catalogue import DATASETS
from mnist_cli.errors import MissingDataError
from mnist_cli.storage.model_file import Model

SAMPLES = 2  # training images of each label


def write(path: Path, model: Model, name: str, data_dir: Path) -> int:
    """Publish the page of `model`, a file called `name`, at `path`; return its bytes.

    Where `data_dir` has the model's data set, its first training images come along.

    Raises:
        DataError: the data set is damaged.
        MnistError: the page cannot be written.

    """
    page = render(model, name, _samples(model.dataset, data_dir)).encode()
    with files.publish(path) as file:
        file.write(page)
    return len(page)


def render(model: Model, name: str, samples: list[dict[str, object]]) -> str:
    """Return the HTML: the template with the model in it, and the hashes of its style and script.

    All that comes from outside is in one block of JSON, where nothing but </script could end it.
    """
    page = Path(__file__).with_name("page.html").read_text("utf-8")
    for tag in ("style", "script"):
        [block] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = _base64(hashlib.sha256(block.encode()).digest())
        page = page.replace(f"{tag}-hash", f"sha256-{digest}")
    W, b = (array.astype("<f4") for array in model.params)
    values = {
        "name": name,
        "dataset": model.dataset,
        "normalize": model.normalize,
        "features": model.features,
        "labels": DATASETS[model.dataset].label_names or [str(label) for label in range(10)],
        "params": _base64(W.tobytes() + b.tobytes()),
        "samples": samples,
    }
    return page.replace("model-json", json.dumps(values).replace("<", r"\u003c"))


def _samples(dataset: str, data_dir: Path) -> list[dict[str, object]]:
    """Return the first training images of each label, or none where there are none."""
    try:
        split = loading.load(dataset, "train", data_dir)
    except MissingDataError:
        return []
    chosen = [i for label in range(10) for i in np.flatnonzero(split.labels == label)[:SAMPLES]]
    return [
        {"label": int(split.labels[i]), "pixels": _base64(split.images[i].tobytes())}
        for i in chosen
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
