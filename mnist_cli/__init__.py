"""Train, evaluate and apply one linear softmax on MNIST, with numpy alone."""

__version__ = "0.1.0"
