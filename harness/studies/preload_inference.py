"""The imports of the process from which runs of inference are forked: MindSpore, PyTorch and lm-eval."""

import importlib

# In the order in which a fresh process imports them.
for module in (
    "harness.studies.preload",
    "harness.runners.mindspore_inference",
    "transformers.models.auto.tokenization_auto",
    "harness.runners.lm_evaluation",
):
    importlib.import_module(module)
