"""Evaluation: the protocol, ranking, scores, features on disk."""
