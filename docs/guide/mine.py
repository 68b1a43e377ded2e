"""A network and a data set, as two functions that can be called without arguments."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset


def make_net(width=128):
    first = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
    second = nn.Sequential(nn.Linear(width, width), nn.ReLU())
    third = nn.Sequential(nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(first, second, third, nn.Linear(width, 10))


def make_data():
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    whole = TensorDataset(images, torch.tensor(digits.target))
    return {
        "train": TensorDataset(*whole[:500]),
        "validation": TensorDataset(*whole[500:700]),
        "test": TensorDataset(*whole[700:]),
    }
