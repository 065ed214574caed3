"""Print what docs/agreement.md shows, and on the other stream what was measured."""

import sys

from agreement.report import apart, section
from agreement.routes import REFERENCE, runs

for route, run in runs().items():
    found = apart(run, runs()[REFERENCE])
    sys.stderr.write(f"{route.framework}, {route.applied}: {found}\n")
sys.stdout.write(section(runs()) + "\n")
