"""The floor with each product in two halves, as mnist-cli takes them."""

from numpy_floor import run

run(parts=2)
