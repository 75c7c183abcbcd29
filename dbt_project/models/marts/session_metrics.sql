{%- set lookaround = var('lookaround_days') | int -%}
{{
    config(
        tags=['events'],
        partition_by='session_date',
        order_by=['channel', 'started_at', 'session_id'],
    )
}}

with events as (

    select
        session_id,
        event_date,
        event_id,
        occurred_at,
        event_type,
        channel,
        user_id,
        page
    from {{ ref('int_events_deduplicated') }}
    where {{ in_rebuilt_days('event_date', back=2 * lookaround, ahead=lookaround) }}

),

-- a session starts on a day that has none of its events on the lookaround_days before it; the event before
-- the first is taken to be of 1970
placed as (

    select
        *,
        row_number() over in_session as place,
        lagInFrame(event_date) over in_session as previous_date,
        if(event_date - previous_date > {{ lookaround }}, event_date, toDate(0)) as start_date
    from events
    window in_session as (
        partition by session_id
        order by event_date, occurred_at, event_id
        rows between unbounded preceding and current row
    )

),

-- and takes in its events up to lookaround_days later. A day beyond them is a row of its own: so every row
-- depends on few days, and every event is in exactly one row
filed as (

    select
        *,
        max(start_date) over (
            partition by session_id
            order by event_date, occurred_at, event_id
            rows between unbounded preceding and current row
        ) as last_start_date,
        if(event_date - last_start_date <= {{ lookaround }}, last_start_date, event_date) as session_date
    from placed

),

sessions as (

    select
        session_date,
        session_id,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        toLowCardinality(argMin(channel, place)) as channel,
        nullIf(argMaxIf(assumeNotNull(user_id), place, user_id is not null), '') as user_id,
        count() as events,
        uniqExact(page) as pages,
        nullIf(argMinIf(assumeNotNull(page), place, page is not null), '') as entry_page,
        nullIf(argMaxIf(assumeNotNull(page), place, page is not null), '') as exit_page,
        countIf(event_type in ('{{ var("conversion_event_types") | join("', '") }}')) as conversions
    from filed
    where {{ in_rebuilt_days('session_date') }}
    group by session_date, session_id

)

select
    session_date,
    session_id,
    started_at,
    ended_at,
    dateDiff('microsecond', started_at, ended_at) / 1e6 as duration_seconds,
    channel,
    user_id,
    events,
    pages,
    entry_page,
    exit_page,
    toBool(events = 1) as is_bounce,
    conversions
from sessions
