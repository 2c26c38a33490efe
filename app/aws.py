"""What AWS clients of every service have in common. Only boto3: the collector's Lambda carries this module too."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)

NO_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
)
"""Nothing was asked: what this process was given to sign with cannot be used, or it was given nothing."""
