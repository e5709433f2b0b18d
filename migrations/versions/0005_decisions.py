"""Approvals, withdrawals, what was shown and opened; the kill switch; the audit log."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
alter table incident
    add column planned_revision text,      -- of the newest plan that waited or waits for a decision
    add column planned_at   timestamptz,   -- by our clock: when that plan was made; its age counts from here
    add column reminded_at  timestamptz,   -- of that plan
    add column escalated_at timestamptz,
    add column expired_at   timestamptz;
update incident set planned_at = updated_at, planned_revision = plan_revision where plan_revision is not null;
create index incident_plan_waiting on incident (planned_at) where plan_revision is not null;

alter table decision
    add column steps        int[] not null default '{}',   -- ordinals that were approved; none: all
    add column via          text not null default 'rest',
    add column approvals    jsonb not null default '[]',
    add column plan_digest  text not null default '',
    add column decided_at   timestamptz not null default clock_timestamp(), -- by our clock
    add column first_shown_at timestamptz,  -- by our clock: to the one who decided; null: never seen by a page of ours
    add column withdrawn_at timestamptz,
    add column withdrawn_by text;
update decision set decided_at = least(at, decided_at);     -- those that were made before this column was
create index decision_decided on decision (decided_at);

-- A yes that waits for another person's. One of each person and plan.
create table approval (
    incident_id   text not null references incident,
    plan_revision text not null,
    choice        text not null,
    steps         int[] not null default '{}',
    approved_by   text not null,
    role          text not null,
    via           text not null,
    at            timestamptz not null,                         -- by the operated world's clock
    approved_at   timestamptz not null default clock_timestamp(),
    primary key (incident_id, plan_revision, approved_by)
);

-- What a person was shown, the first time; `what` is plan:<revision>, report or evidence:<id>.
create table shown (
    incident_id text not null references incident,
    who         text not null,
    what        text not null,
    via         text not null,
    at          timestamptz not null default clock_timestamp(),
    primary key (incident_id, who, what)
);

alter table step
    add column services text[] not null default '{}';          -- of the catalogue, that it changes
create index step_services on step using gin (services);

-- The kill switch. Pulled while a row has no lifted_at.
create table kill_switch (
    id        bigint generated always as identity primary key,
    pulled_at timestamptz not null default clock_timestamp(),
    pulled_by text not null,
    reason    text not null default '',
    lifted_at timestamptz,
    lifted_by text
);
create unique index kill_switch_one on kill_switch ((true)) where lifted_at is null;

-- Append-only, each row bound to the one before it.
create table audit (
    seq         bigint primary key,
    at          timestamptz not null,
    kind        text not null,
    actor       text not null,
    incident_id text,
    body        json not null,              -- its text is part of the hash, so it must stay as it was written
    prev_hash   text not null,
    hash        text not null
);
create index audit_incident on audit (incident_id, seq) where incident_id is not null;
create index audit_installation on audit (kind, seq) where incident_id is null;
create index audit_refusal on audit (at) where kind = 'refusal';
create table audit_head (
    single    boolean primary key default true check (single),
    seq       bigint not null,
    hash      text not null,
    key_id    text not null,                -- which key made the signature
    signature text not null,
    since     timestamptz not null default clock_timestamp() -- by our clock: what is older has no rows
);
insert into audit_head (seq, hash, key_id, signature) values (0, '', '', '');
create function audit_is_append_only() returns trigger language plpgsql as
    $$ begin raise exception 'the audit log is append-only'; end $$;
create trigger audit_append_only before update or delete or truncate on audit
    for each statement execute function audit_is_append_only();
"""


def upgrade() -> None:
    """Decisions made before have no audit rows: the log begins with this version."""
    op.execute(TABLES)


def downgrade() -> None:
    """The audit log is dropped, and approvals that wait."""
    op.execute(
        """drop table audit, audit_head, kill_switch, shown, approval;
        drop function audit_is_append_only;
        alter table step drop column services;
        alter table decision drop column steps, drop column via, drop column approvals, drop column plan_digest,
            drop column decided_at, drop column first_shown_at, drop column withdrawn_at, drop column withdrawn_by;
        alter table incident drop column planned_revision, drop column planned_at,
            drop column reminded_at, drop column escalated_at, drop column expired_at"""
    )
