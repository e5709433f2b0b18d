"""The model: every call of it, what it cost, what an analyst read; what earlier incidents taught; the language."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
-- Every call of a model. What it may cost at most is reserved before it is made; what it did cost takes its place.
-- A call that nobody came back from keeps its reservation: it may have been billed.
create table llm_call (
    id                uuid primary key default gen_random_uuid(),
    incident_id       text not null references incident,
    round             int not null,
    node              text not null,
    at                timestamptz not null default clock_timestamp(), -- by our clock: the day it counts for
    model             text not null,
    prompt_sha256     text not null,
    messages          jsonb not null,         -- masked
    reserved_tokens   int not null,
    reserved_dollars  numeric not null,
    finished_at       timestamptz,
    answer            jsonb,                  -- masked; null: there was none
    prompt_tokens     int not null default 0,
    completion_tokens int not null default 0,
    cached_tokens     int not null default 0, -- of the prompt's
    dollars           numeric not null default 0,
    estimated         boolean not null default false, -- its server does not tell tokens
    seconds           real,
    finish_reason     text not null default '',
    error             text not null default ''
);
create index llm_call_incident on llm_call (incident_id, at);
create index llm_call_day on llm_call (at) include (dollars, reserved_dollars);
drop index event_spending;
alter table event drop column recorded_at;    -- what was spent was summed by it

alter table snapshot
    add column read text not null default '', -- sha256 of an analyst's question that it answers
    drop constraint snapshot_pkey,
    add primary key (incident_id, round, widened, source, read);

alter table incident
    add column language text not null default 'en' check (language in ('en', 'ko'));
alter table decision
    add column language text check (language in ('en', 'ko')); -- of the analysis that it asks for, if it is to change

-- Past incidents, newest first: by what fired, by what was found. Names are cut to what an index can hold.
create index incident_past_fingerprint on incident (left(alert->>'fingerprint', 500), closed_at desc)
    where closed_at is not null;
create index incident_past_rule on incident (left(alert->>'rule', 500), closed_at desc)
    where closed_at is not null;
alter table analysis add column at timestamptz not null default clock_timestamp();
update analysis a set at = i.opened_at from incident i where i.id = a.incident_id;
create index analysis_component on analysis (left(root_cause->>'component', 200), at desc)
    where root_cause is not null;
create index analysis_category on analysis (left(root_cause->>'category', 200), at desc)
    where root_cause is not null;
"""


def upgrade() -> None:
    """What calls before it cost stands in the timeline only: the day begins anew."""
    op.execute(TABLES)


def downgrade() -> None:
    """The calls are dropped, and what analysts read."""
    op.execute(
        """drop index incident_past_fingerprint, incident_past_rule, analysis_component, analysis_category;
        alter table analysis drop column at;
        alter table decision drop column language;
        alter table incident drop column language;
        delete from snapshot where read <> '';
        alter table snapshot drop constraint snapshot_pkey, drop column read,
            add primary key (incident_id, round, widened, source);
        alter table event add column recorded_at timestamptz not null default clock_timestamp();
        create index event_spending on event (recorded_at) where kind = 'usage';
        drop table llm_call"""
    )
