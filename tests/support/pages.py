"""What of a page has no Chinese."""

import re

from harness.report.languages import chinese
from harness.report.view import Page

# What people, machines and packages are called is the same in both languages, and so is what people wrote.
NAMES = re.compile(r"(machine|packages)\.")
WRITTEN = ("By", "Reason", "Command", "Recorded on")
WORD = re.compile(r"(?<![\w./])[a-z]{3,}(?![\w./])")  # no name of a file, a field or a package


def facts_without_chinese(page: Page) -> list[str]:
    """The terms and sentences among the facts of a page that are shown in English alone."""
    shown = page.provenance
    facts = [
        fact for fact in (*shown.inputs, *shown.case, *shown.source, *shown.baseline) if not NAMES.match(fact.term)
    ]
    texts = [
        fact.text for fact in facts if not fact.code and fact.term not in WRITTEN and len(WORD.findall(fact.text)) > 1
    ]
    runs = [text for run in shown.runs for text in (run.purpose, run.mark.word, run.steps, run.resumed)]
    purposes = [command.purpose for command in shown.commands]
    said = [*(fact.term for fact in facts), *texts, *shown.protection, *shown.notices, *runs, *purposes]
    return [text for text in dict.fromkeys(said) if chinese(text) == text and WORD.search(text)]
