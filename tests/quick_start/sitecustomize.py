"""Python runs this first in the processes that tests start (see conftest.py), so that they start faster."""

import gc

# PyTorch and transformers make half a million objects that stay. By default, the collector of garbage goes through
# them again and again while they are made.
gc.set_threshold(100_000)
