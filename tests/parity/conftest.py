"""Logs of the libraries that are compared with go to a temporary directory, not into the checkout."""

import os
import tempfile

# mindformers writes its log on import, to ./output unless it is told otherwise.
os.environ.setdefault("LOG_MF_PATH", tempfile.mkdtemp(prefix="mindformers-log-"))
