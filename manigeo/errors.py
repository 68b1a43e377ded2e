"""What goes wrong on a user's side, as one line and an exit code.

Exit codes of every command: 0 done, 1 failure, 2 usage, 3 input incomplete or incompatible, 130 interrupted.
"""


class ManigeoError(Exception):
    """A failure that a user can understand: its message is the one line to print."""

    exit_code = 1


class UsageError(ManigeoError):
    """What was asked for does not exist or does not go together; asking differently helps."""

    exit_code = 2


class InputError(ManigeoError):
    """A file or data set is missing, incomplete, damaged or does not fit the others."""

    exit_code = 3
