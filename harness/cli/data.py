"""`certify data ...`: from WikiText to the token batches of a case, one command per stage."""

import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import progress
from rich.table import Table

from harness.base.digest import digest_array, digest_tensors
from harness.base.errors import InputError
from harness.cases.case import DEFAULT_CASE, Case, load_case
from harness.cases.data import Tokenizer
from harness.certify.case_options import with_sources
from harness.cli.options import CaseArgument, DataOption, JsonOption, TextOption, TokenizerOption
from harness.cli.terminal import MET, error_console, out_console
from harness.corpus.batches import draw_batches
from harness.corpus.draw import batch_tensors, draw_weights, write_batches
from harness.corpus.indexed import open_indexed
from harness.corpus.inspection import Inspection, first_documents, inspect_indexed
from harness.corpus.preprocess import PreprocessOptions
from harness.corpus.preprocess import preprocess as preprocess_documents
from harness.corpus.qwen import find_qwen_vocabulary, write_qwen_tokenizer
from harness.corpus.tokenizers import TextTokenizer, load_tokenizer
from harness.corpus.wikitext import write_jsonl
from qwen3_model.checkpoints import Checkpoint, write_hugging_face

SHOWN_TOKENS = 48
BAR_WIDTH = 40

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
InspectTokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="'bytes', or the directory of a Hugging Face tokenizer.")
]


def jsonl(
    source: Annotated[Path, typer.Argument(help="A WikiText .tokens file, or any UTF-8 text.")],
    destination: Annotated[Path, typer.Argument(help="The .jsonl file to write.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Keep the text unchanged: <unk>, ' @-@ ' and spaces before punctuation.")
    ] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> int:
    """Write one JSON object per article: src, text, type, id, title."""
    with _bytes_done("reading", source, quiet=as_json) as update:
        written = write_jsonl(source, destination, raw=raw, overwrite=overwrite, progress=update)
    if as_json:
        print(json.dumps({"destination": str(destination), **vars(written)}))
        return MET
    out_console.print(
        f"{destination}: {written.articles:,} articles, {written.bytes_written:,} bytes, sha256 {written.sha256[:12]}",
        markup=False,
        soft_wrap=True,
    )
    if written.kept_as_text:
        error_console.print(
            "Fewer than two titles were found. These lines look like one, but have no blank lines around them, and are "
            f"text: {', '.join(map(repr, written.kept_as_text))}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    return MET


def preprocess(
    source: Annotated[Path, typer.Option("--input", help="The .jsonl file: one object per line.")],
    output_prefix: Annotated[Path, typer.Option(help="Where to write: PREFIX_text_document.bin and .idx.")],
    tokenizer_type: Annotated[
        str | None, typer.Option(help="HuggingFaceTokenizer; not needed with --tokenizer-dir.")
    ] = None,
    tokenizer_dir: Annotated[Path | None, typer.Option(help="Directory of the Hugging Face tokenizer.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="'bytes': each byte is a token, no files needed.")] = None,
    json_keys: Annotated[
        list[str] | None, typer.Option(help="Field that holds text (default: text); may be given several times.")
    ] = None,
    append_eod: Annotated[
        bool, typer.Option("--append-eod", help="End each document with the end-of-document token.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    dtype: Annotated[str, typer.Option(help="Type of a stored id: int32, as in mindformers, or uint16.")] = "int32",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> int:
    """Tokenize a .jsonl file into Megatron's files, byte for byte as mindformers' preprocess_indexed_dataset.py."""
    loaded = _load(_preprocess_tokenizer(tokenizer_type, tokenizer_dir, tokenizer))
    options = PreprocessOptions(
        source=source,
        output_prefix=output_prefix,
        json_keys=tuple(json_keys or ["text"]),
        append_eod=append_eod,
        dtype=dtype,
        workers=workers or len(os.sched_getaffinity(0)),
        overwrite=overwrite,
    )
    with _bytes_done("tokenizing", source, quiet=as_json) as update:
        written = preprocess_documents(options, loaded, update)
    if as_json:
        print(json.dumps({"written": [{**vars(one), "prefix": str(one.prefix)} for one in written]}))
        return MET
    for one in written:
        out_console.print(
            f"{one.prefix}: {one.documents:,} documents, {one.tokens:,} tokens. Check it with: "
            f"certify data inspect {shlex.quote(str(one.prefix))}",
            markup=False,
            soft_wrap=True,
        )
    return MET


def _preprocess_tokenizer(kind: str | None, directory: Path | None, name: str | None) -> str:
    if kind not in (None, "HuggingFaceTokenizer"):
        raise InputError(
            f"There is no tokenizer type {kind!r} here, only HuggingFaceTokenizer: save the tokenizer with "
            "save_pretrained and give its directory with --tokenizer-dir."
        )
    if name is not None and (kind or directory):
        raise InputError("--tokenizer excludes --tokenizer-type and --tokenizer-dir, which name another tokenizer.")
    if name is None and directory is None:
        raise InputError("Give a tokenizer: --tokenizer-dir DIR (Hugging Face), or --tokenizer bytes.")
    return name or str(directory)


def _load(tokenizer: str) -> TextTokenizer:
    if tokenizer == "bytes":
        return load_tokenizer(Tokenizer(kind="bytes"))
    return load_tokenizer(Tokenizer(kind="huggingface", path=tokenizer))


def inspect(
    prefix: Annotated[Path, typer.Argument(help="Common prefix of the .bin and the .idx file.")],
    tokenizer: InspectTokenizer = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Ids must be below it; default: the tokenizer's size.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Number of first documents to show.")] = 3,
    as_json: JsonOption = False,
) -> int:
    """Check every byte of a Megatron data set, and show its content.

    Exit code 0: both files match. 2: they do not; the message names the place.
    """
    loaded = _load(tokenizer) if tokenizer else None
    dataset = open_indexed(prefix)
    found = inspect_indexed(dataset, vocab_size or (loaded.vocab_size if loaded else None))
    shown = [
        loaded.decode(ids) if loaded else " ".join(map(str, ids))
        for ids in first_documents(dataset, show, SHOWN_TOKENS)
    ]
    if as_json:
        print(json.dumps({"prefix": str(prefix), **dataclasses.asdict(found), "first_documents": shown}))
        return MET
    _print_inspection(prefix, found, shown)
    return MET


def _print_inspection(prefix: Path, found: Inspection, shown: list[str]) -> None:
    rows = {
        "data set": str(prefix),
        "documents": f"{found.documents:,}" + (f" ({found.empty_documents:,} empty)" if found.empty_documents else ""),
        "sequences": f"{found.sequences:,}",
        "tokens": f"{found.tokens:,} {found.dtype}",
        "ids": f"{found.lowest_id:,} to {found.highest_id:,}",
        "tokens a document": f"{found.shortest:,} to {found.longest:,}, median {found.median:,.0f}, "
        f"mean {found.mean:,.0f}",
        "digest": found.sha256,
    }
    _print_facts(rows)
    largest = max(one.documents for one in found.histogram)
    bars = Table("tokens", "documents", "", box=None, pad_edge=False)
    for one in found.histogram:
        span = f"{one.least:,}" if one.least == one.most else f"{one.least:,} to {one.most:,}"
        bars.add_row(span, f"{one.documents:,}", "█" * -(-one.documents * BAR_WIDTH // largest))
    out_console.print(bars)
    for number, text in enumerate(shown):
        out_console.print(f"document {number}: {text}", markup=False, soft_wrap=True)


def _print_facts(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        out_console.print(f"{name:<17} {value}", markup=False, soft_wrap=True)


def _write_weights(case: Case, kept: Sequence[int] | None, directory: Path) -> None:
    """Writes the initial weights of a case.

    Raises:
        InputError: the directory exists.
    """
    if directory.exists():
        raise InputError(f"{directory} exists. Choose another --weights.")
    drawn = Checkpoint(config=case.model, step=0, parameters=draw_weights(case, kept), moments={})
    write_hugging_face(drawn, directory)


def batches(
    case: CaseArgument = DEFAULT_CASE,
    text: TextOption = None,
    data: DataOption = None,
    tokenizer: TokenizerOption = None,
    out: Annotated[Path | None, typer.Option(help="Write tokens and loss masks as a .safetensors file.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Write the initial weights too, as a checkpoint in Hugging Face format.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Number of first rows to show.")] = 3,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> int:
    """Draw the exact token batches that both sides of a case read."""
    chosen = with_sources(load_case(case), text, data, tokenizer)
    drawn = draw_batches(chosen)
    tensors = batch_tensors(drawn)
    if out is not None:
        write_batches(tensors, out, overwrite=overwrite)
    if weights is not None:
        _write_weights(chosen, drawn.kept, weights)
    steps, rows, length = drawn.tokens.shape
    found: dict[str, Any] = {
        "case": chosen.name,
        "order": chosen.data.order,
        "corpus": drawn.description,
        "corpus_sha256": drawn.corpus_sha256,
        "corpus_tokens": drawn.corpus_tokens,
        "tokenizer_sha256": drawn.tokenizer_sha256,
        "shape": [steps, rows, length - 1],
        "target_tokens": int(drawn.loss_mask.sum()),
        "epochs": drawn.epochs,
        "digest": digest_tensors(tensors),
    }
    if as_json:
        found["steps"] = [digest_array(tokens) for tokens in drawn.tokens]
        print(json.dumps(found))
        return MET
    _print_facts(found)
    for number, row in enumerate(drawn.tokens.reshape(-1, length)[:show]):
        ids = " ".join(map(str, row[:SHOWN_TOKENS]))
        out_console.print(f"step {number // rows + 1}, row {number % rows}: {ids} …", markup=False, soft_wrap=True)
    return MET


def tokenizer(
    directory: Annotated[Path, typer.Argument(help="The Hugging Face tokenizer directory to write.")],
    vocabulary: Annotated[
        Path | None, typer.Option(help="A qwen.tiktoken file; default: the one that dashscope ships.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Write Qwen3's tokenizer as a Hugging Face directory, from Qwen's published vocabulary, without a network."""
    write_qwen_tokenizer(vocabulary or find_qwen_vocabulary(), directory)
    loaded = _load(str(directory))
    if as_json:
        print(json.dumps({"directory": str(directory), "vocab_size": loaded.vocab_size, "sha256": loaded.sha256}))
        return MET
    out_console.print(
        f"{directory}: {loaded.vocab_size:,} tokens, end of document {loaded.eod}", markup=False, soft_wrap=True
    )
    return MET


@contextlib.contextmanager
def _bytes_done(what: str, source: Path, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A progress bar over the bytes of a file; the callback takes the number of processed bytes."""
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True),
        console=error_console,
        disable=quiet or not error_console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=source.stat().st_size if source.is_file() else None)
        yield lambda done: bar.update(task, completed=done)
