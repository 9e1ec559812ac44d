"""What a process has done from which those that ask a model are forked: MindSpore, PyTorch and lm-eval are imported."""

import importlib

# In the order in which a fresh process comes to them.
for module in (
    "harness.studies.preload",
    "harness.runners.mindspore_inference",
    "transformers.models.auto.tokenization_auto",
    "harness.runners.lm_evaluation",
):
    importlib.import_module(module)
