"""The paper's Table 3, and its encoder for all tasks as an engine serves it."""
