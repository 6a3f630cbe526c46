"""The one exception that is meant for the person who runs SARTM."""


class SartmError(Exception):
    """Input that cannot be used: a file, a size, a setting, a message.

    The text is one line that says what was wrong, what was expected and, where there is one, the
    remedy. The command line prints it and exits with status 2; the node logs it, counts it and
    goes on with the next frame. Anything else that is raised is a fault of the program.
    """
