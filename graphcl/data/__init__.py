"""Data: names, stores, sources, splits, loaders. Importing the package itself loads no torch."""
