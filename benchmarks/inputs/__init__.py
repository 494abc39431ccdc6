"""What is measured on: texts, encoders' shapes, and seeded weights, codes and heads."""
