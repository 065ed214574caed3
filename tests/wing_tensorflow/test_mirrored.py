"""A mirrored strategy gives the update of one device.

In a process of its own: how many logical devices there are is settled when TensorFlow starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_two_replicas_as_one_device() -> None:
    program = Path(__file__).with_name("mirrored.py")
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("ok\n")
