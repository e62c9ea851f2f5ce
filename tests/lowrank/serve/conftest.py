"""The fixtures of a server for all tests of this folder."""

from served import endless, engine, hat_folders, live, make_text, served, shelf

__all__ = ["endless", "engine", "hat_folders", "live", "make_text", "served", "shelf"]
