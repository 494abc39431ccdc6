"""TensorRT plans of a bundle's graph: `bitheads plan`."""
