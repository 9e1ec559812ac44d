"""Digests of drawn tensors and signs: the same on every machine and under every version, or every trace changes."""

import hashlib

from harness.runs.drawing import normal, spread, words
from harness.runs.sketches import signs

NAME = "model.norm.weight"
FROZEN = {
    "words": "0a7ae93b7f29feb633321aeba74134c4753dd577b55ad1931b46120666125247",
    "normal": "d6477025e4b4ccdc688b186b39c992ad60ea3c9815cf11a352df986f7e169686",
    "spread": "bf0b634b23b8deda8c7897104d0dc83bfa2f3b5703bc4b6ebe02405b223704c0",
    "signs": "c58d9c8368b1ddeb7b5e5f2157dec18336ac4986d598215921078ae5a50e9934",
}


def drawn() -> dict[str, str]:
    """What this machine draws."""
    made = {
        "words": words(NAME, 5, 4096).astype("<u8").tobytes(),
        "normal": normal(NAME, (64, 64), 0.02).astype("<f4").tobytes(),
        "spread": spread(NAME, (64, 64)).astype("<f4").tobytes(),
        "signs": (signs(NAME, 0, 4096) > 0).tobytes(),
    }
    return {name: hashlib.sha256(some).hexdigest() for name, some in made.items()}
