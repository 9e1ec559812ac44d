"""The collector: a few lines in a trainer, after which its run is evidence.

A trainer calls it once a step; it writes the trace that a run of the harness writes. What is here needs numpy and the
standard library; `hugging_face`, `mindformers` and `plain` also import the framework of their trainer. It reads copies
and changes no bit of the training. An error in it ends the collection and never the training.
"""
