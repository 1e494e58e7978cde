"""Evaluation: protocol, ranking, re-ranking, scores, features on disk, records for reports."""
