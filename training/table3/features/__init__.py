"""Features of an encoder's layers: recipes, how they are made, where they are kept."""
