"""What a process tells the machine, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from src.training.machine import keep_memory
keep_memory()
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(size) for size in (2**21, 2**24, 2**22)]  # 22,528 pages, and free again
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum([step() for _ in range(16)][-6:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's is left alone")
def test_after_the_first_steps_no_memory_is_taken_anew():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000  # six steps; each block above 32 MB taken anew is 16,384 at least
