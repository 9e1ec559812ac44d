"""Certifies a MindSpore model: runs it beside its reference, compares, judges, and computes its level."""
