"""What all parts use: checks of arguments, warnings, optional packages."""
