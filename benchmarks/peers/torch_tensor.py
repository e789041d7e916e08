"""PyTorch, eager, over a tensor that holds all images: the tight loop."""

import sys
import time

import torch
from common import BATCH, DECAY, EPOCHS, MOMENTUM, RATE, load, report

torch.set_num_threads(int(sys.argv.pop()))
torch.manual_seed(0)
images, labels = load("train")
x = torch.from_numpy(images).float() / 255
y = torch.from_numpy(labels).long()
model = torch.nn.Linear(784, 10)
criterion = torch.nn.CrossEntropyLoss()
decayed = [{"params": [model.weight], "weight_decay": DECAY}, {"params": [model.bias]}]
optimizer = torch.training.SGD(decayed, lr=RATE, momentum=MOMENTUM)
steps = EPOCHS * -(-len(x) // BATCH)
scheduler = torch.training.lr_scheduler.CosineAnnealingLR(optimizer, steps)
started = time.perf_counter()
for _ in range(EPOCHS):
    order = torch.randperm(len(x))
    for chosen in order.split(BATCH):
        optimizer.zero_grad()
        criterion(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        scheduler.step()
seconds = time.perf_counter() - started
report(seconds, model.weight.detach().numpy().T, model.bias.detach().numpy())
