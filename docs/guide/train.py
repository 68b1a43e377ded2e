import pandas as pd
import torch
from mine import make_data, make_net
from torch.utils.data import DataLoader, TensorDataset

from manigeo_extract import Recorder

torch.manual_seed(0)
images, labels = make_data()["train"].tensors
chosen = torch.randperm(len(labels))[: len(labels) // 2]  # half of the labels change places
permuted = labels.clone()
permuted[chosen] = labels[chosen[torch.randperm(len(chosen))]]

net = make_net()
loader = DataLoader(TensorDataset(images, permuted), batch_size=32, shuffle=True)
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
recorder = Recorder("run", arch="mine.py:make_net", data="mine.py:make_data", epochs=(5, 10, 20))
rows = {"index": range(len(labels)), "train_label": permuted}
pd.DataFrame(rows).to_csv(recorder.directory / "labels.csv", index=False)
recorder.step(net, 0)
for epoch in range(1, 151):
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    recorder.step(net, epoch)
torch.save(net.state_dict(), "mine.pt")
