"""Using a trained network: embedder, export, model card, gallery search."""
