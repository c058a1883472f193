"""Runs files with slow tests first: started last, one would keep one core busy while the others wait."""

import pytest

try:
    from hypothesis import settings
except ImportError:  # benchmarks.gpu runs the GPU tests without hypothesis
    pass
else:
    settings.register_profile("no-deadlines", deadline=None)  # machines are shared: no test asserts a time
    settings.load_profile("no-deadlines")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
