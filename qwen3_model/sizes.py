"""The published sizes of dense Qwen3, and small ones for tests."""

from collections.abc import Mapping
from types import MappingProxyType

from qwen3_model.configuration_qwen3 import Qwen3Config


def _published(
    layers: int, hidden: int, intermediate: int, heads: int, *, max_window_layers: int, tied: bool
) -> Qwen3Config:
    """A dense Qwen3 as published: all sizes share eight key-value heads of width 128, vocabulary and context."""
    return Qwen3Config(
        vocab_size=151936,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=tied,
        max_window_layers=max_window_layers,
        bos_token_id=151643,
        eos_token_id=151645,
    )


# Source: config.json of Qwen/Qwen3-0.6B ... Qwen/Qwen3-32B on the Hugging Face hub, as of 2025.
PUBLISHED: Mapping[str, Qwen3Config] = MappingProxyType(
    {
        "0.6B": _published(28, 1024, 3072, 16, max_window_layers=28, tied=True),
        "1.7B": _published(28, 2048, 6144, 16, max_window_layers=28, tied=True),
        "4B": _published(36, 2560, 9728, 32, max_window_layers=36, tied=True),
        "8B": _published(36, 4096, 12288, 32, max_window_layers=36, tied=False),
        "14B": _published(40, 5120, 17408, 40, max_window_layers=40, tied=False),
        "32B": _published(64, 5120, 25600, 64, max_window_layers=64, tied=False),
    }
)


def _small(layers: int, hidden: int, intermediate: int, heads: int, vocab: int, *, tied: bool) -> Qwen3Config:
    """A test-sized Qwen3 with two query heads per key-value head of width 32."""
    return Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        max_window_layers=layers,
    )


# "tiny": head_dim differs from hidden_size / heads, as in most published sizes.
SMALL: Mapping[str, Qwen3Config] = MappingProxyType(
    {
        "tiny": _small(2, 64, 160, 4, 320, tied=False),
        "tiny-tied": _small(2, 64, 160, 4, 320, tied=True),
        "small": _small(4, 256, 768, 8, 2048, tied=False),
    }
)
