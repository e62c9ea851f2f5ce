"""The rules of `derived` by name, for what lists them without deriving anything."""

RULES = ("sum", "difference", "ratio", "share", "change")
