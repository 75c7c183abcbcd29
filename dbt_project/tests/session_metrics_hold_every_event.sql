{#-
  Each session row holds exactly the deduplicated events between its start and its end, and each session that
  starts on a refreshed day has a row there. Counted by a join and by arrays, apart from how the mart is built.
-#}
{{ config(tags=['daily', 'events']) }}
{%- set lookaround = var('lookaround_days') | int -%}

with sessions as (

    select session_id, session_date, started_at, ended_at, events
    from {{ ref('session_metrics') }}
    where {{ in_rebuilt_days('session_date') }}

),

events as (

    select session_id, event_date, occurred_at
    from {{ ref('int_events_deduplicated') }}
    where {{ in_rebuilt_days('event_date', back=lookaround, ahead=lookaround) }}

),

recounted as (

    select
        sessions.session_id as session_id,
        sessions.session_date as session_date,
        any(sessions.events) as row_events,
        countIf(events.occurred_at between sessions.started_at and sessions.ended_at) as recounted_events
    from sessions
    inner join events on sessions.session_id = events.session_id
    group by session_id, session_date

),

starts as (

    select
        session_id,
        groupUniqArray(event_date) as days,
        arrayJoin(
            arrayFilter(
                day -> not arrayExists(other -> other < day and day - other <= {{ lookaround }}, days), days
            )
        ) as session_date
    from events
    group by session_id

)

select session_id, session_date, row_events, recounted_events
from recounted
where row_events != recounted_events

union all

select session_id, session_date, toUInt64(0) as row_events, toUInt64(0) as recounted_events
from starts
where {{ in_rebuilt_days('session_date') }}
    and (session_id, session_date) not in (select session_id, session_date from sessions)

union all

select session_id, session_date, events as row_events, toUInt64(0) as recounted_events
from sessions
where session_id not in (select session_id from events)
