{#-
  Each session row holds exactly the deduplicated events between its start and its end, and each session that
  starts on a refreshed day has a row there. Counted by arrays, apart from how the mart is built. Sessions to which
  events arrive meanwhile are left to the next build.
-#}
{{ config(tags=['daily', 'events'], enabled=headrace.has_stream('events')) }}
{%- set lookaround = headrace.setting('lookaround_days') | int -%}

with events as (

    select
        session_id,
        groupArray(window_time) as times,
        groupUniqArray(event_date) as days
    from (
        {{ events_once(back=lookaround, ahead=lookaround) }}
    )
    where {{ in_rebuilt_days('event_date', back=lookaround, ahead=lookaround) }}
    group by session_id

),

sessions as (

    select
        session_id,
        groupArray((session_date, started_at, ended_at, events)) as filed
    from {{ ref('session_metrics') }}
    where {{ in_rebuilt_days('session_date') }}
    group by session_id

),

compared as (

    select
        session_id,
        arrayFilter(
            row -> row.4 != arrayCount(time -> time between row.2 and row.3, times), filed
        ) as miscounted,
        arrayFilter(
            day -> {{ in_rebuilt_days('day') }}
                and not arrayExists(other -> other < day and day - other <= {{ lookaround }}, days)
                and not arrayExists(row -> row.1 = day, filed),
            days
        ) as missing
    from events
    full outer join sessions using (session_id)

)

select session_id, miscounted, missing
from compared
where (notEmpty(miscounted) or notEmpty(missing))
    and session_id not in ({{ arriving('events', 'event_date', 'session_id', back=lookaround, ahead=lookaround) }})
