import re
import runpy
from pathlib import Path

import numpy as np

from mnist_cli.functional import Array

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "hidden_layer.py"


def test_network_learns_the_synthetic_digits(digits: tuple[Array, Array]) -> None:
    network = runpy.run_path(str(SCRIPT))
    images, labels = digits
    x = images.reshape(len(images), -1).astype(np.float32) / 255
    params = network["train"](x[:800], labels[:800], epochs=5, batch_size=20)
    assert network["accuracy"](params, x[800:], labels[800:]) > 0.85


def test_page_shows_the_code_of_the_script() -> None:
    """So the page's own check of the gradients is a check of the script's."""
    page = (ROOT / "docs" / "hidden-layer.md").read_text(encoding="utf-8")
    for name in ("initialize", "forward", "gradients", "train"):
        function = re.compile(rf"^def {name}\(.*?^    return [^\n]*\n", re.M | re.S)
        assert function.findall(SCRIPT.read_text(encoding="utf-8")) == function.findall(page)
