"""What holds for every test: annotations are executed, each worker keeps to one thread, and no clock decides."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import hypothesis
import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

# Before anything imports the package: every annotation of `src/unrolled`, shapes included, is checked at every call of the whole run.
# An `int` may stand where a `float` is asked for, as every type checker allows (PEP 484).
checker = types.ModuleType("unrolled_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[checker.__name__] = checker
jaxtyping.install_import_hook("unrolled", "unrolled_checker.check")

# A busy machine may take any time for one example.
hypothesis.settings.register_profile("without a clock", deadline=None)
hypothesis.settings.load_profile("without a clock")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Workers run side by side: one thread each, for the commands that they start as well.
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A page of the documentation is one story in one folder, so its examples stay on one worker; tests are shared out one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class PagesWhole(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.endswith(".md") else nodeid

    return PagesWhole(config, log) if config.getoption("dist") == "load" else None
