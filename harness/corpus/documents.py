"""The documents of a corpus, as text in a fixed order, with the digest of what was read.

A file whose digest differs from the case's is an error.
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from harness.base.digest import digest_bytes, digest_file, digest_json
from harness.base.errors import InputError, MissingPrerequisite
from harness.cases.data import Corpus
from harness.corpus.wikitext import read_articles, read_lines

TRANSFORMERS_VERSION = "4.57.1"
# Digest over name and content of the sources below, as `transformers_sources` computes it for that wheel.
TRANSFORMERS_SOURCES_SHA256 = "38c18dfe50797386ccdd6e7bdc343600886e22bb18ddb3ed624c5aa2e04ae786"


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Texts in the order of the corpus; `sha256` is the digest of their source bytes."""

    texts: tuple[str, ...]
    sha256: str
    description: str


def transformers_sources() -> Documents:
    """The top-level modules of the pinned `transformers` wheel: real text that needs no download.

    Raises:
        MissingPrerequisite: another version is installed, or none.
        InputError: the installed files are not those of the wheel.
    """
    install = "Install it with: pip install '.[torch]', or give a corpus with --text FILE."
    try:
        distribution = importlib.metadata.distribution("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise MissingPrerequisite(
            f"The default corpus is the sources of transformers {TRANSFORMERS_VERSION}, which is not installed. "
            f"{install}"
        ) from None
    if distribution.version != TRANSFORMERS_VERSION:
        raise MissingPrerequisite(
            f"The default corpus is the sources of transformers {TRANSFORMERS_VERSION}; "
            f"{distribution.version} is installed. {install}"
        )
    root = Path(str(distribution.locate_file("transformers")))
    files = {path.name: path.read_bytes() for path in sorted(root.glob("*.py"))}
    sha256 = digest_json({name: digest_bytes(content) for name, content in files.items()})
    if sha256 != TRANSFORMERS_SOURCES_SHA256:
        raise InputError(
            f"The sources under {root} are not those of the transformers {TRANSFORMERS_VERSION} wheel "
            f"(digest {sha256[:12]}, expected {TRANSFORMERS_SOURCES_SHA256[:12]}). Reinstall it: "
            f"pip install --force-reinstall --no-deps transformers=={TRANSFORMERS_VERSION}"
        )
    texts = tuple(content.decode("utf-8") for content in files.values() if content.strip())
    return Documents(texts=texts, sha256=sha256, description=f"sources of transformers {TRANSFORMERS_VERSION}")


def text_documents(path: Path) -> Documents:
    """The articles of a WikiText `.tokens` file, unchanged; any other UTF-8 text is one document.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or is empty.
    """
    texts = [article.text for article in read_articles(read_lines(path), raw=True)]
    if not any(text.strip() for text in texts):
        raise InputError(f"The text {path} is empty.")
    return Documents(
        texts=tuple(text for text in texts if text.strip()), sha256=digest_file(path), description=path.name
    )


def read_documents(corpus: Corpus) -> Documents:
    """The documents of a `transformers-sources` or `text` corpus.

    Raises:
        InputError: see `text_documents`; or the digest differs from the case's.
    """
    if corpus.kind == "transformers-sources":
        documents = transformers_sources()
    else:
        documents = text_documents(source_path(corpus.kind, corpus.path))
    check_digest(corpus.sha256, documents.sha256, documents.description)
    return documents


def source_path(kind: str, path: str | None) -> Path:
    """The path of a source on this machine.

    Raises:
        InputError: the case states the digest only.
    """
    if path is None:
        option = {
            "text": "--text FILE",
            "megatron": "--data PREFIX",
            "huggingface": "--tokenizer DIR",
            "checkpoint": "--model DIR",
            "blend": "data.corpus.data_path in the case's file",
        }[kind]
        raise InputError(f"The case states only the digest of its {kind} source. Give its path with {option}.")
    return Path(path)


def check_digest(expected: str | None, found: str, what: str) -> None:
    """Checks a source against the digest that a case states.

    Raises:
        InputError: the digests differ.
    """
    if expected is not None and expected != found:
        raise InputError(f"{what} has the digest {found}, the case states {expected}: it is another file.")
