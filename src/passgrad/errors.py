"""The error that a user can cause."""


class UserError(ValueError):
    """A mistake in what the caller gave: one line that names the thing and the remedy.

    The command line prints it without a traceback and exits with status 1.
    Anything else that is raised is a fault of the package.
    """
