"""Text tables, for plans and reports."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a ruled header. Columns that are empty in every row are left out."""
    lines = [header, *rows]
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    widths = {i: max(len(line[i]) for line in lines) for i in used}
    text = ["  ".join(line[i].ljust(widths[i]) for i in used).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * widths[i] for i in used))
    return "\n".join(text)
