"""What all tests share."""

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and the runs that they start inherit it.
# Tests of Ctrl-C need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)
