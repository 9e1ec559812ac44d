"""The cost of a layout before it is run: memory of every stage, bytes between ranks, and a search for the best layout.

Computes numbers from a case; runs nothing and imports no framework. Each number states whether it is exact or an
estimate.
"""
