"""A trained network in use: embedder, export, model card, gallery search."""
