"""Training configurations of mindformers (its YAML), read as cases.

`configuration` reads one; `fields` has the table of every field that is handled; `kind` decides what is such a file.
"""

from harness.cases.mindformers.configuration import Configuration, read_configuration
from harness.cases.mindformers.fields import Field, known_fields
from harness.cases.mindformers.kind import is_configuration

__all__ = ["Configuration", "Field", "is_configuration", "known_fields", "read_configuration"]
