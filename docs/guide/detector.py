"""The voice activity detector of silero-vad in torch: its weights come as safetensors, its code for another library."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

RATE = 16_000  # samples per second


class Detector(nn.Module):
    """Probability of speech in 576 samples, without what the recurrent cell remembers of those before them."""

    def __init__(self):
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, sound):
        real, imaginary = self.stft_conv(F.pad(sound, (0, 64), "reflect")[:, None]).split(129, dim=1)
        x = torch.sqrt(real**2 + imaginary**2)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        h, _ = self.lstm_cell(x.squeeze(-1))
        return self.final_conv(h.relu()[..., None]).squeeze(-1).sigmoid()


def voice(kind, rng):
    """A harmonic sound: ten pitches."""
    t = np.arange(576) / RATE
    pitch = 90 * 1.12**kind * rng.uniform(0.97, 1.03)
    phases = rng.uniform(0, 2 * np.pi, 20)
    return sum(np.sin(2 * np.pi * k * pitch * t + phases[k - 1]) / k for k in range(1, 21))


def noise(kind, rng):
    """Noise whose power falls with frequency: ten slopes."""
    spectrum = np.fft.rfft(rng.standard_normal(576)) * np.arange(1, 290) ** (-0.2 * kind)
    return np.fft.irfft(spectrum)


def make_sounds(train=40, test=10):
    """Ten classes of voices and ten of noise, of one loudness."""
    rng = np.random.default_rng(0)
    parts = {}
    for name, n in {"train": train, "test": test}.items():
        labels = np.repeat(np.arange(20), n)
        sounds = np.stack([voice(label, rng) if label < 10 else noise(label - 10, rng) for label in labels])
        sounds *= 0.05 / np.sqrt(np.mean(sounds**2, axis=1, keepdims=True))
        parts[name] = TensorDataset(torch.from_numpy(sounds).float(), torch.from_numpy(labels))
    return parts
