"""Settings of every test: shapes checked as declared, one thread, a fixed set of generated examples, no caches of the user."""

import os
import pathlib
import sys
import tempfile

# Where the driver of the kill tests stands, which the benchmarks share.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))

# Children of the tests inherit these.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["NO_COLOR"] = "1"
os.environ["POFX_CACHE"] = tempfile.mkdtemp(prefix="pofx-cache-")
os.environ.pop("POFX_PATH", None)

import hypothesis
import matplotlib as mpl
import torch
from jaxtyping import install_import_hook

# Before any of these modules is imported: from here on a tensor of another shape than declared is an error.
install_import_hook(
    ["pofx.losses", "pofx.nn", "pofx.models"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)  # fmt: skip

mpl.use("Agg")
torch.set_num_threads(1)
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50, database=None)
hypothesis.settings.load_profile("fixed")
