"""The memory: cases and runbook sections, what they are found by, what was done about them, and what people said."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLES = """
-- When its case was written; null or before closed_at: it is to be written (again). So all that ended before is.
alter table incident add column learned_at timestamptz;
create index incident_unlearned on incident (closed_at)
    where closed_at is not null and (learned_at is null or learned_at < closed_at);

-- Plans of a round that were made anew, oldest first: people may have refused, or judged, an option of them.
alter table analysis add column earlier_plans jsonb not null default '[]';

-- One row is one case, or one section of a runbook. The id of an incident's case is the incident's.
create table knowledge (
    id          text primary key,
    kind        text not null check (kind in ('incident', 'imported', 'runbook')),
    incident_id text references incident,
    environment text not null default '',        -- empty: any
    service     text not null default '',        -- the alerted one
    component   text,                            -- the cause as known best: feedback overrules the analysis
    category    text not null default '',
    title       text not null,
    summary     text not null default '',
    report      text not null default '',        -- markdown: the post-action report
    outcome     text not null default 'unresolved' check (outcome in
                    ('resolved', 'improved', 'unchanged', 'worse', 'by_hand', 'recovered', 'unresolved')),
    trust       text not null default 'unknown' check (trust in
                    ('unknown', 'right', 'partly', 'wrong', 'corrected')), -- what people said of the analysis
    helped      text not null default '',        -- what really helped, by a person's word
    signature   jsonb not null default '{}',     -- graph.signature.Signature
    occurred_at timestamptz not null,
    learned_at  timestamptz not null default clock_timestamp(),
    fold        text not null,                   -- cases of one fold are the same thing happening again
    folded      boolean not null default false,  -- another of its fold stands for it: it is not searched
    seen        int not null default 1,          -- for how many cases of its fold it stands
    source      text not null default '',        -- whence it was imported
    author      text not null default '',
    sha256      text not null,                   -- of all that was given
    embedded    boolean not null default false,  -- its vector was made by the embedder that is set, or is refused by it
    searchable  text not null default '',        -- folded words of all its texts, names taken apart, Hangul in pairs
    words       tsvector not null generated always as (strip(to_tsvector('pg_catalog.english', searchable))) stored
);
create index knowledge_words on knowledge using gin (words) with (fastupdate = off) where not folded;
create index knowledge_newest on knowledge (occurred_at desc, id) where not folded;
create index knowledge_fold on knowledge (fold, occurred_at desc, id);
create index knowledge_incident on knowledge (incident_id) where incident_id is not null;
create index knowledge_source on knowledge (source, id) where source <> '';
create index knowledge_unembedded on knowledge (id) where not embedded and not folded;

-- What a case is found by beside its words: component:payment-service, error:PoolTimeout, …; a runbook's begin with
-- «runbook ». Of each term the newest are looked at, so a search costs the same whatever there is.
create table knowledge_term (
    knowledge_id text not null references knowledge on delete cascade,
    term         text not null,
    environment  text not null,
    occurred_at  timestamptz not null,
    primary key (knowledge_id, term)
);
create index knowledge_term_newest on knowledge_term (term, environment, occurred_at desc) include (knowledge_id);

-- In how many of the cases that can be found a term, or a word (=pool), stands: rare ones tell more. The empty one
-- counts all of them, and @production those of an environment.
create table knowledge_frequency (
    term  text primary key,
    cases int not null
) with (fillfactor = 70);
create index knowledge_environment on knowledge_frequency (term) where starts_with(term, '@');

-- What was done about a case, or was offered and not done.
create table remedy (
    knowledge_id  text not null references knowledge on delete cascade,
    ordinal       int not null,
    operation     text not null default '',      -- of the registry; empty: something else, see title
    params        jsonb not null default '{}',
    title         text not null default '',      -- of the option, or what a person wrote
    environment   text not null default '',
    service       text not null default '',      -- the alerted one
    component     text,                          -- the cause as known best
    category      text not null default '',
    fate          text not null check (fate in ('run', 'rehearsed', 'rejected', 'by_hand')),
    verdict       text not null default '',      -- as measured; empty: nothing was measured
    credit        text not null default '',      -- graph.state.Verification.credit
    helped        text not null default '' check (helped in ('', 'yes', 'partly', 'no')), -- by a person's word
    plan_revision text not null default '',
    option        int not null default 0,        -- 1 to 3; 0: none
    at            timestamptz not null,          -- by the operated world's clock
    primary key (knowledge_id, ordinal)
);
create index remedy_category on remedy (category, at desc) where operation <> '';
create index remedy_component on remedy (category, component, at desc) where operation <> '';

-- What people said of an analysis, an option or a verification. The newest of each author stands.
create table feedback (
    id            uuid primary key default gen_random_uuid(),
    incident_id   text not null references incident,
    about         text not null check (about in ('report', 'option', 'verification')),
    plan_revision text not null default '',
    option        int not null default 0,        -- 1 to 3; 0: not about an option
    verdict       text not null check (verdict in ('right', 'wrong', 'partly')),
    component     text not null default '',      -- the true cause; empty: not said
    category      text not null default '',
    helped        text not null default '',      -- an operation of the registry, or what was done in words
    note          text not null default '',
    by            text not null,
    role          text not null default 'responder',
    via           text not null default 'rest',
    at            timestamptz not null default clock_timestamp(),
    unique (incident_id, about, plan_revision, option, by)
);
"""


def upgrade() -> None:
    """Incidents that ended before are learned by the first sweep of a worker."""
    op.execute(TABLES)


def downgrade() -> None:
    """Cases of incidents can be made again; feedback, and what was imported, are gone."""
    op.execute(
        """drop table if exists knowledge_vector;
        drop table feedback, remedy, knowledge_frequency, knowledge_term, knowledge;
        drop index incident_unlearned;
        alter table analysis drop column earlier_plans;
        alter table incident drop column learned_at"""
    )
