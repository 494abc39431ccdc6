"""Time and memory of long texts, where attention within windows pays."""
