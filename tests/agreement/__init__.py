"""One model and one rules table on every framework, to be compared number by number.

``python -m agreement``, run in ``tests/``, prints what was measured.
"""
