"""The one error that a user can mend: train.py prints its message in one line instead of a traceback."""


class InputError(ValueError):
    """An argument, file or split that cannot be used: what was given, what is valid, what to do next."""
