"""Layouts: files as others publish them, read as tables. `format` of a manifest names one by `class_path`."""

from kebyt5_xm.data.layouts.layout import Layout

__all__ = ["Layout"]
