"""The case: everything that fixes a run, from YAML to a frozen record with a digest.

Takes YAML written for this project or for mindformers; rejects unknown content, with every problem in one error.
"""

from harness.cases.case import DEFAULT_CASE, Case, load_case, parse_case, shipped_cases
from harness.cases.data import Corpus, Data, Tokenizer
from harness.cases.runs_of_a_case import required_runs

__all__ = [
    "DEFAULT_CASE",
    "Case",
    "Corpus",
    "Data",
    "Tokenizer",
    "load_case",
    "parse_case",
    "required_runs",
    "shipped_cases",
]
