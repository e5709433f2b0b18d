"""Alerts, incidents, their rounds, decisions and ledger; keys."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
-- Every delivery as it came, before anybody understands it.
create table raw_delivery (
    id           uuid primary key default gen_random_uuid(),
    sender       text not null,
    received_at  timestamptz not null default clock_timestamp(),
    headers      jsonb not null,
    body         bytea not null,
    delivery_key text unique,             -- the same delivery twice is one
    parse_error  text                     -- set: a dead letter
);
create index raw_delivery_dead on raw_delivery (received_at) where parse_error is not null;

create table incident (
    id              text primary key,
    service         text not null,
    title           text not null,
    severity        text not null,
    source          text not null,
    environment     text not null,
    occurred_at     timestamptz not null,
    cycle_key       text not null,
    idempotency_key text unique,
    status          text not null default 'received',
    status_reason   text not null default '',
    round           int not null default 0,
    failures        int not null default 0,
    plan_revision   text,                 -- set while a decision is awaited
    alert           jsonb not null,       -- graph.state.Alert: the graph's input
    opened_by       text not null,
    opened_at       timestamptz not null default clock_timestamp(),
    updated_at      timestamptz not null default clock_timestamp(),
    closed_at       timestamptz
);
create unique index incident_open_cycle on incident (cycle_key) where closed_at is null;
create index incident_open on incident (updated_at) where closed_at is null;
create index incident_page on incident (opened_at desc, id desc);
create index incident_service on incident (service, opened_at desc);
create index incident_status on incident (status, opened_at desc);

create table alert (
    id           uuid primary key default gen_random_uuid(),
    raw_id       uuid references raw_delivery,
    incident_id  text references incident,
    merge_reason text not null default '',
    transition   text not null,
    fingerprint  text not null,
    cycle_key    text not null,
    body         jsonb not null,
    received_at  timestamptz not null default clock_timestamp()
);
create index alert_incident on alert (incident_id);
create index alert_cycle on alert (cycle_key, received_at);

-- The timeline; feeds SSE. `key` makes a repeated projection harmless.
create table event (
    id          bigint generated always as identity primary key,
    incident_id text not null references incident,
    key         text not null,
    at          timestamptz not null,
    kind        text not null,
    node        text not null default '',
    message     text not null,
    data        jsonb not null default '{}',
    unique (incident_id, key)
);
create index event_incident on event (incident_id, id);

-- Raw telemetry, stored once.
create table snapshot (
    incident_id text not null references incident,
    round       int not null,
    source      text not null,
    sha256      text not null,
    body        bytea not null,           -- zlib over JSON of collectors.base.Telemetry
    at          timestamptz not null default clock_timestamp(),
    primary key (incident_id, round, source)
);

-- What one pass of the analysis found out.
create table analysis (
    incident_id text not null references incident,
    round       int not null,
    scope       jsonb,
    evidence    jsonb,
    root_cause  jsonb,
    plan        jsonb,
    primary key (incident_id, round)
);

create table decision (
    incident_id   text not null references incident,
    plan_revision text not null,
    choice        text not null,
    hint          text not null default '',
    note          text not null default '',
    decided_by    text not null,
    at            timestamptz not null,
    primary key (incident_id, plan_revision)
);

-- The ledger: claimed before the call, finished after it.
create table step (
    id            uuid primary key default gen_random_uuid(),
    incident_id   text not null,
    plan_revision text not null,
    ordinal       int not null,
    undo          boolean not null default false,
    operation     text not null,
    params        jsonb not null,
    resource      text not null,          -- keys, comma-separated; empty for operations that only read
    before        jsonb not null,
    attempt       int not null default 1,
    claimed_at    timestamptz not null,   -- by the operated world's clock
    touched_at    timestamptz not null default clock_timestamp(), -- by ours: when a call may have begun
    finished_at   timestamptz,
    result        jsonb,
    unique (incident_id, plan_revision, ordinal, undo),
    foreign key (incident_id, plan_revision) references decision
);

-- One action at a time per resource, across incidents and machines.
create table lease (
    resource text primary key,
    step_id  uuid not null references step
);
create index lease_step on lease (step_id);

create table execution (
    incident_id   text not null,
    plan_revision text not null,
    body          jsonb not null,
    at            timestamptz not null default clock_timestamp(),
    primary key (incident_id, plan_revision),
    foreign key (incident_id, plan_revision) references decision
);

-- API keys, console sessions and one-time sign-in links: random secrets, stored as sha256.
create table credential (
    id          text primary key,
    kind        text not null check (kind in ('key', 'session', 'sign_in')),
    name        text not null,
    role        text not null check (role in ('viewer', 'responder', 'admin')),
    secret_hash bytea not null,
    created_at  timestamptz not null default clock_timestamp(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute(
        "drop table lease, credential, execution, step, decision, analysis, snapshot, event, alert, incident,"
        " raw_delivery"
    )
