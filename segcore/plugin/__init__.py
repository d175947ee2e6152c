"""What the pytest plugin is made of; `segcore.pytest_plugin` is its door."""
