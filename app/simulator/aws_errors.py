"""How AWS says no."""


class AwsError(Exception):
    """A request that is refused. ``code`` is AWS's own error code, ``status`` the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
