"""Helpers for all folders of the package: checks of arguments, warnings, optional packages."""
