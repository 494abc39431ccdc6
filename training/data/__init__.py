"""Labelled texts: one file, a folder of tasks, and the batches that are made of them."""
