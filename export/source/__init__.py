"""The trained encoder that a bundle is made of: loaded, and refused where it cannot be honoured."""
