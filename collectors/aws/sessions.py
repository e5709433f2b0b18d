"""Where AWS credentials come from: a profile or AWS's own chain, and a role that is assumed with them."""

import boto3
import botocore.session
from botocore.credentials import AssumeRoleCredentialFetcher, CredentialProvider, DeferredRefreshableCredentials
from botocore.exceptions import ProfileNotFound


def session_for(region: str | None, profile: str | None, role_arn: str | None) -> boto3.Session:
    """A session with credentials, those of the role where one is named. Raises ValueError."""
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
    except ProfileNotFound:
        raise ValueError(f"AUTOPILOT_AWS_PROFILE names no AWS profile: {profile}") from None
    if session.get_credentials() is None:
        raise ValueError(
            "The collector 'aws' found no AWS credentials: set AUTOPILOT_AWS_PROFILE, "
            "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    return _assumed(session, role_arn) if role_arn else session


class _AssumedRole(CredentialProvider):
    """Credentials of a role, renewed before they expire."""

    METHOD = CANONICAL_NAME = "autopilot-assume-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> DeferredRefreshableCredentials:
        """No request is made before the first use."""
        return DeferredRefreshableCredentials(self._fetcher.fetch_credentials, self.METHOD)


def _assumed(session: boto3.Session, role_arn: str) -> boto3.Session:
    source = session.get_credentials()
    own = botocore.session.get_session()
    own.set_config_variable("region", session.region_name)
    fetcher = AssumeRoleCredentialFetcher(own.create_client, source, role_arn)
    assumed = botocore.session.get_session()
    assumed.get_component("credential_provider").insert_before("env", _AssumedRole(fetcher))
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)
