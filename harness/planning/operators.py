"""The operators of a graph saved by MindSpore: how many of each it has."""

import re
from collections import Counter

ENTRY = re.compile(r"^ +%\d+\([^=]*\) = (?:PrimFunc_)?([A-Z]\w*)\(", re.MULTILINE)
# What a graph has for its own order and its tuples; no kernel is launched for them.
NO_KERNEL = frozenset({"Depend", "Load", "MakeTuple", "Partial", "TupleGetItem", "UpdateState", "U"})
FORWARD = ("FlashAttentionScore", "RmsNorm", "RotaryPositionEmbedding", "Swiglu")
FUSED = (*FORWARD, *(f"{name}Grad" for name in FORWARD))


def read_operators(graph: str) -> Counter[str]:
    """MindSpore's name of each operator in the text of an IR file, and how often it is there."""
    return Counter(name for name in ENTRY.findall(graph) if name not in NO_KERNEL)
