"""Sharded parameters under jit need nothing: GSPMD puts the sums over devices where they belong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_equal_to_unsharded_on_two_and_four_devices() -> None:
    """In a process of its own: the number of devices is fixed when JAX starts."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
    }
    program = Path(__file__).with_name("sharded.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
