"""Synthetic voices: a pulse train filtered by the formants of a vocal tract (source and filter, Fant 1960)."""

import numpy as np
import torch
from resemblyzer import VoiceEncoder, wav_to_mel_spectrogram
from scipy.signal import lfilter
from torch.utils.data import TensorDataset

RATE = 16_000  # samples per second
VOWELS = np.array([[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]])  # Hz


def vowel(formants, pitch, n, rng):
    """``n`` samples of one vowel: pulses at ``pitch`` Hz with a slow vibrato, through one resonance per formant."""
    phase = np.cumsum(pitch * (1 + 0.02 * np.sin(2 * np.pi * 5 * np.arange(n) / RATE))) / RATE
    sound = np.diff(np.floor(phase), prepend=0) + 0.005 * rng.standard_normal(n)
    for frequency in formants:
        radius = np.exp(-np.pi * 80 / RATE)  # a bandwidth of 80 Hz
        sound = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], sound)
    return sound * np.hanning(n)


def utterance(speaker, rng, seconds=1.6):
    """Eight random vowels of a speaker: a pitch, and the length of the vocal tract, which scales all formants."""
    pitch, tract = speaker
    n = int(seconds * RATE / 8)
    said = [vowel(VOWELS[rng.integers(5)] * tract, pitch * rng.uniform(0.9, 1.1), n, rng) for _ in range(8)]
    sound = np.concatenate(said)
    return (0.03 * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def make_speakers(speakers=20, train=20, test=10):
    """Spectrograms of 160 frames, as the network was trained on, labelled by the speaker."""
    rng = np.random.default_rng(0)
    who = np.stack([rng.uniform(90, 260, speakers), rng.uniform(0.85, 1.2, speakers)], axis=1)
    parts = {}
    for name, n in {"train": train, "test": test}.items():
        labels = np.repeat(np.arange(speakers), n)
        mels = np.stack([wav_to_mel_spectrogram(utterance(who[label], rng))[:160] for label in labels])
        parts[name] = TensorDataset(torch.from_numpy(mels), torch.from_numpy(labels))
    return parts


def make_untrained():
    """The network before training: that of the package loads its weights as it is built."""
    network = VoiceEncoder("cpu", verbose=False)
    network.lstm.reset_parameters()
    network.linear.reset_parameters()
    return network
