"""Turn exposure brackets into linear HDR images."""

__version__ = "0.1.0"
