{#- a session is filed right where 2 * lookaround_days before it are known, so the table reaches that much further -#}
{%- set further = 2 * headrace.setting('lookaround_days') | int -%}
{{
    config(
        materialized='materialized_view',
        tags=['events', 'speed'],
        engine='AggregatingMergeTree',
        partition_by='event_date',
        order_by=['session_id', 'user_id'],
        ttl='event_date + toIntervalDay(' ~ (headrace.setting('speed_days') | int + further + 1) ~ ')',
        settings={deduplication_window(): 10000},
    )
}}

-- one array instead of a state for each column of the mart: states of argMin, argMax and uniqExact cost ten times as
-- much to fold. user_id is a column, so that the rows of a person can be found and deleted
select
    {{ window_date('landed.event_date') }} as event_date,
    session_id,
    coalesce(user_id, '') as user_id,
    groupArrayState(({{ window_time() }}, event_id, event_type, channel, {{ page() }})) as arrived
from {{ raw_inserts('events') }} as landed
{{ seen_before('events', 'event_date', ref('speed_event_keys'), further) }}
where {{ recent(further) }}
    and {{ is_first('event_date') }}
group by event_date, session_id, user_id
