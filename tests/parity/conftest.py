"""Qwen's tokenizer for all tests; logs of the libraries go to a temporary directory, not into the checkout."""

import os
import tempfile
from pathlib import Path

import mindspore  # noqa: F401  # before megatron-core: it says how protobuf is to work in this process
import pytest

from harness.corpus.qwen import find_qwen_vocabulary, write_qwen_tokenizer
from harness.corpus.tokenizers import HuggingFaceTokenizer
from tests.support.prepared import prepared

__all__ = ["prepared"]

# mindformers writes its log on import, to ./output unless it is told otherwise.
os.environ.setdefault("LOG_MF_PATH", tempfile.mkdtemp(prefix="mindformers-log-"))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizers") / "qwen"
    write_qwen_tokenizer(find_qwen_vocabulary(), directory)
    return directory


@pytest.fixture(scope="session")
def loaded(qwen: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(qwen)
