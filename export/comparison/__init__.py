"""Building is verifying: what the graph computes beside what transformers computes."""
