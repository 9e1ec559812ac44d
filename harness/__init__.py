"""Certifies a MindSpore model: runs it and its reference, compares, judges, and computes its level."""
