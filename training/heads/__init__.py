"""Task heads on packed features: `bitheads train-head`."""
