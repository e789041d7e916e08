"""What the network sees: the stages between a picture and its 784 numbers."""
