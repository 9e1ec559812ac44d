"""The inputs of a case: corpora, tokenizers, token batches and initial weights."""
