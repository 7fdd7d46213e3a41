"""The error that a user can cause."""


class UserError(ValueError):
    """A mistake in what the caller gave: one line that names the thing and the remedy.

    The command line prints it without a traceback and exits with status 1.
    Anything else that is raised is a fault of the package.

    >>> import passgrad as pg
    >>> try:
    ...     pg.pass_at_k(4, 1, 8)
    ... except pg.UserError as error:
    ...     print(error)
    k = 8 exceeds num_samples = 4: draw more samples
    """
