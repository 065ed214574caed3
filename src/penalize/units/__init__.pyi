"""The public names of penalize.units, and where each is from."""

from penalize.units.fitted import read as read
from penalize.units.table import convert as convert
from penalize.units.table import find as find
from penalize.units.table import invert as invert
from penalize.units.table import names as names
from penalize.units.unit import Unit as Unit

__all__: list[str]
