"""The exception whose message is for the user."""


class SartmError(Exception):
    """Raised for input that cannot be used: a file, a size, a setting, a message.

    The text is one line that says what was wrong, what was expected and, if possible, what to do.
    The command line prints it and exits with status 2; the node logs and counts it and continues
    with the next frame. Every other exception is a bug.
    """
