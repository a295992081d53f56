"""Python runs this first in all processes of the tests (see conftest.py), and they start a quarter faster."""

import gc

# PyTorch and transformers make half a million objects that stay. By default, the collector of garbage goes through
# them again and again while they are made.
gc.set_threshold(100_000)
