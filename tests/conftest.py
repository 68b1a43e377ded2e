"""The order of the tests: what takes minutes in one piece comes first, so that no worker is left with it at the end."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "test_notebooks" not in item.path.name)
