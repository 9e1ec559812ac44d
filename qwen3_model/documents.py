"""Several documents in one row, and what starts again after each."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Rows that hold several documents, each ended by the token `end`, and what starts again after one.

    Source: Megatron-LM, `megatron/core/datasets/gpt_dataset.py`, `_get_ltor_masks_and_position_ids`; mindformers has
    the same two switches.

    Attributes:
        end: The id of the token that ends a document and belongs to it.
        reset_attention_mask: Whether a token attends to its own document only.
        reset_position_ids: Whether positions count from the beginning of a document.
    """

    end: int
    reset_attention_mask: bool
    reset_position_ids: bool
