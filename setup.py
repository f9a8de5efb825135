"""The part in C, which is left out where it cannot be compiled. Everything else stands in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("zapros_websocket._protocol._speedups", ["zapros_websocket/_protocol/_speedups.c"], optional=True)
    ]
)
