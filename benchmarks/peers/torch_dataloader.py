"""PyTorch, eager, over a DataLoader, as its tutorials do."""

import sys
import time

import torch
from common import BATCH, DECAY, EPOCHS, MOMENTUM, RATE, load, report
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(int(sys.argv.pop()))
torch.manual_seed(0)
images, labels = load("train")
dataset = TensorDataset(torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long())
loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
model = torch.nn.Linear(784, 10)
criterion = torch.nn.CrossEntropyLoss()
decayed = [{"params": [model.weight], "weight_decay": DECAY}, {"params": [model.bias]}]
optimizer = torch.training.SGD(decayed, lr=RATE, momentum=MOMENTUM)
scheduler = torch.training.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader))
started = time.perf_counter()
for _ in range(EPOCHS):
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        scheduler.step()
seconds = time.perf_counter() - started
report(seconds, model.weight.detach().numpy().T, model.bias.detach().numpy())
