"""The one door to a live network: which network, which weights, which data, which labels, which device."""
