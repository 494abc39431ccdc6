"""The paper's Table 3 as a grid of cells: method x task x seed. `bitheads table3`."""
