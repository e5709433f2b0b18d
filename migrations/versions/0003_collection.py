"""Collection: a second look, further back, beside the first; the key of what is masked."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
alter table snapshot
    add column widened boolean not null default false, -- the second look of a round, further back
    drop constraint snapshot_pkey,
    add primary key (incident_id, round, widened, source);

-- One row. The same secret has the same placeholder in every incident, and nobody without the key can guess it.
create table installation (
    singleton   boolean primary key default true check (singleton),
    masking_key bytea not null
);
"""


def upgrade() -> None:
    """Nothing is lost: what there is are first looks."""
    op.execute(TABLES)
    insert = sa.text("insert into installation (masking_key) values (:key)")
    op.get_bind().execute(insert, {"key": secrets.token_bytes(32)})


def downgrade() -> None:
    """Second looks are dropped."""
    op.execute(
        """delete from snapshot where widened;
        alter table snapshot drop constraint snapshot_pkey, drop column widened,
            add primary key (incident_id, round, source);
        drop table installation"""
    )
