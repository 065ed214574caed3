"""``penalize demo``: one small network under five penalties, and what each leaves of it."""

from penalize.demo.run import run

__all__ = ["run"]
