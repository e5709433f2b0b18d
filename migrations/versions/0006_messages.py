"""The outbox: events that people hear of, the messages that tell them, the conversations they belong to."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
-- Written with the event; taken by whoever decides who hears of it.
create table outbox (
    event_id    bigint primary key references event,
    incident_id text not null references incident,
    written_at  timestamptz not null default clock_timestamp()
);
create function outbox_wakes() returns trigger language plpgsql as
    $$ begin perform pg_notify('autopilot_outbox', ''); return null; end $$;
create trigger outbox_wakes after insert on outbox for each row execute function outbox_wakes();

-- One event for one target. All times by our clock.
create table message (
    id           uuid primary key default gen_random_uuid(), -- our idempotency key
    incident_id  text not null references incident,
    event_id     bigint not null references event,
    notifier     text not null,
    target       text not null,
    team         text not null default '',
    why          text not null,
    written_at   timestamptz not null default clock_timestamp(),
    ready_at     timestamptz not null,     -- when it should go out
    due_at       timestamptz not null,     -- not before; while it is being sent: when it counts as broken off
    attempts     int not null default 0,
    tried_since  timestamptz,              -- the first attempt; tries end a day later
    attempted_at timestamptz,              -- of the attempt under way, committed before the call; or of the last
    maybe_sent   boolean not null default false, -- an attempt's end is unknown: it may have arrived
    sent_at      timestamptz,
    failed_at    timestamptz,
    detail       text not null default '',
    receipt      jsonb,
    unique (event_id, notifier, target)
);
create index message_incident on message (incident_id, event_id);
create index message_waiting on message (notifier, target, incident_id, event_id) include (due_at)
    where sent_at is null and failed_at is null;
create index message_failed on message (failed_at) where failed_at is not null;

-- Targets that asked to be told nothing for a while, of whatever incident.
create table patience (
    notifier text not null,
    target   text not null,
    until    timestamptz not null,
    primary key (notifier, target)
);

-- What a notifier must know again: the Slack thread, the Jira issue, …
create table conversation (
    incident_id text not null references incident,
    notifier    text not null,
    target      text not null,
    reference   jsonb not null,
    updated_at  timestamptz not null default clock_timestamp(),
    primary key (incident_id, notifier, target)
);

alter table incident
    add column reopened    int not null default 0,  -- so often; what waits then is told again
    add column escalations int not null default 0;  -- of the newest plan: how many were told that nobody decides
"""


def upgrade() -> None:
    """Nobody is told of what happened before."""
    op.execute(TABLES)


def downgrade() -> None:
    """Messages that wait are dropped."""
    op.execute(
        """drop table outbox, message, conversation, patience;
        drop function outbox_wakes;
        alter table incident drop column reopened, drop column escalations"""
    )
