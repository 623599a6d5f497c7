"""The version of the code, part of every artifact id."""

from importlib.metadata import version

VERSION = version("pymk")
