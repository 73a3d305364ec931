"""The version of this package, in a file that nothing stands behind."""

__version__ = "0.1.0.dev0"
