"""Text that all recipes of a kind must have."""

import runpy

import pytest

from lungmix.cluster import WORKER_ENVIRONMENT
from support.recipes import RECIPES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.sh")), ids=lambda path: path.name)
def test_shell_recipes_set_the_environment_of_local_clusters(recipe):
    text = recipe.read_text()
    for name, value in WORKER_ENVIRONMENT.items():
        assert f"{name}={value}" in text


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.py")), ids=lambda path: path.name)
def test_recipes_of_python_can_be_read(recipe):
    assert "main" in runpy.run_path(str(recipe), run_name="recipe")
