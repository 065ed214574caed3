"""Write docs/optimizers.md."""

from optimizers.report import DOCUMENT, document

DOCUMENT.write_text(document(), encoding="utf-8")
