"""The floor as one would write it, each product whole."""

from numpy_floor import run

run(parts=1)
