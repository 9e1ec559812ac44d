"""Qwen3 for MindSpore: configuration, model, optimizer, schedule and trainer.

Importing the package imports no framework; import the module you need.
"""
