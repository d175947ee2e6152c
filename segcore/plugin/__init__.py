"""The parts of the pytest plugin; `segcore.pytest_plugin` registers them."""
