"""What the page of measured numbers states of a published certificate is what the certificate holds."""

import pytest

from harness.evidence.bundle import Bundle, read_bundle
from tests.support.documents import SITE, read, tables
from tests.support.examples import ROOT

MEASURED = SITE / "measured.md"
CURVES = ("train.loss.relative", "train.grad_norm.relative")
PARAMETERS = "train.parameters.relative"


def certificate(name: str) -> Bundle:
    return read_bundle(ROOT / "reports" / name)


def number(value: float) -> str:
    """Two digits, as the documents write them: 8.2e-8, or 0."""
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"


def first_and_largest(bundle: Bundle, measurement: str) -> list[str]:
    values = bundle.comparison[measurement].values
    return [number(values[0]), number(max(values))]


def row(section: str, first: str) -> list[str]:
    """The row of a section's table that begins so."""
    text = read(MEASURED).partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (found,) = (row for table in tables(text) for row in table if row[0] == first)
    return found


def test_the_agreement_of_the_default_case_is_that_of_its_certificate() -> None:
    bundle = certificate("qwen3-tiny-fp32-cpu")
    curves = [one for measurement in CURVES for one in first_and_largest(bundle, measurement)]
    largest = number(max(bundle.comparison[PARAMETERS].values))
    assert row("Agreement of subject and reference", "`qwen3-tiny-fp32`")[2:7] == [*curves, largest]


@pytest.mark.parametrize(
    ("measurement", "words"),
    [(CURVES[0], "loss, step 1 and the largest of 20 steps"), (CURVES[1], "grad norm, step 1 and the largest")],
)
def test_the_agreement_of_the_whole_model_is_that_of_its_certificate(measurement: str, words: str) -> None:
    stated = row("Qwen3-0.6B whole", words)[1]
    assert stated == ", ".join(first_and_largest(certificate("qwen3-0.6b-fp32-cpu"), measurement))
