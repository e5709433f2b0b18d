"""Intake: alert cycles, correlation, waiting investigations, silences, received changes."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
alter table raw_delivery
    add column part text not null default '',        -- of the path, after the sender's name
    add column note text not null default '',
    add column replayed_at timestamptz;               -- a dead letter that could be read later

create index raw_delivery_received on raw_delivery using brin (received_at);

alter index alert_cycle rename to alert_by_cycle;

-- One alert from trigger to recovery. `changed_at` orders its transitions; an older one changes nothing.
create table alert_cycle (
    cycle_key   text primary key,
    fingerprint text not null,            -- rule and resource: the same every time it fires
    rule        text not null,
    service     text not null,
    environment text not null,
    resources   text[] not null,          -- tags, labels or dimensions that name one thing
    title       text not null,
    state       text not null check (state in ('firing', 'resolved')),
    changed_at  timestamptz not null,
    fired_at    timestamptz,
    incident_id text references incident,
    flaps       int not null default 0
);
create index alert_cycle_incident on alert_cycle (incident_id);
create index alert_cycle_fingerprint on alert_cycle (fingerprint, changed_at desc);
create index alert_cycle_service on alert_cycle (service, fired_at desc);
-- Read as often as written: its list of pending entries would be read through every time.
create index alert_cycle_resources on alert_cycle using gin (resources) with (fastupdate = off);

insert into alert_cycle (cycle_key, fingerprint, rule, service, environment, resources, title, state, changed_at,
                         fired_at, incident_id)
select cycle_key, alert->>'fingerprint', '', service, '', '{}', title, 'firing', occurred_at, occurred_at, id
from incident where closed_at is null;

alter table alert add column score real;              -- how well it fitted, where it was merged
create index alert_page on alert (received_at desc, id desc);
create index alert_unplaced on alert (cycle_key) where incident_id is null;

alter table incident
    drop column cycle_key,
    drop column idempotency_key,
    add column asked_by     text not null default '',  -- a person who wanted this very investigation
    add column flaps        int not null default 0,
    add column recovered    boolean not null default false, -- closed because all its alerts had recovered
    add column follows      text references incident,  -- the incident that the same alert had before
    add column admitted_at  timestamptz,               -- its investigation may run; null: it waits
    add column held_by      text,                      -- the silence it waits for
    add column held_until   timestamptz;
update incident set admitted_at = opened_at;
create index incident_waiting on incident (
    (asked_by = ''), (case severity when 'critical' then 1 when 'warning' then 2 else 3 end), opened_at, id
) where closed_at is null and admitted_at is null;
create index incident_held on incident (held_by) where held_by is not null and closed_at is null;
create index incident_of_service on incident (service, admitted_at);
create index incident_running on incident (status) where closed_at is null and admitted_at is not null;

-- Two alerts that a person took apart are not merged again. Fingerprints, the smaller one first.
create table split_pair (
    one   text not null,
    other text not null,
    by    text not null,
    at    timestamptz not null default clock_timestamp(),
    primary key (one, other)
);
create index split_pair_other on split_pair (other);

-- Maintenance windows and snoozes: alerts are stored and linked, and nobody is called.
create table silence (
    id          text primary key,
    service     text,                     -- null: any
    rule        text,
    fingerprint text,
    starts_at   timestamptz not null,
    ends_at     timestamptz not null,
    reason      text not null,
    created_by  text not null,
    created_at  timestamptz not null default clock_timestamp(),
    ended_by    text,                     -- who ended it before its time
    check (starts_at < ends_at)
);
create index silence_ends on silence (ends_at);

-- Deployments and the like that were told to us: context for the next investigation.
create table received_change (
    id        bigint generated always as identity primary key,
    raw_id    uuid references raw_delivery,
    component text not null,
    at        timestamptz not null,
    body      jsonb not null              -- collectors.base.Change
);
create index received_change_component on received_change (component, at);

-- Who was seen calling whom, in traces.
create table observed_edge (
    caller  text not null,
    callee  text not null,
    seen_at timestamptz not null default clock_timestamp(),
    primary key (caller, callee)
);

alter table event add column recorded_at timestamptz not null default clock_timestamp(); -- `at` is the world's clock
create index event_spending on event (recorded_at) where kind = 'usage';
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute(
        """alter table event drop column recorded_at;
        drop index raw_delivery_received, alert_page, alert_unplaced;
        alter table incident add column cycle_key text, add column idempotency_key text unique;
        update incident i set cycle_key = coalesce(
            (select c.cycle_key from alert_cycle c where c.incident_id = i.id order by c.fired_at limit 1), i.id);
        alter table incident alter column cycle_key set not null;
        create unique index incident_open_cycle on incident (cycle_key) where closed_at is null;
        drop table observed_edge, received_change, silence, split_pair, alert_cycle;
        alter index alert_by_cycle rename to alert_cycle;
        alter table incident drop column asked_by, drop column flaps, drop column recovered, drop column follows,
            drop column admitted_at, drop column held_by, drop column held_until;
        alter table alert drop column score;
        alter table raw_delivery drop column part, drop column note, drop column replayed_at"""
    )
