{%- set lookaround = headrace.setting('lookaround_days') | int -%}
{{
    config(
        partition_by='session_date',
        order_by=['channel', 'started_at', 'session_id'],
    )
}}

with events as (

    -- not events_history: its neighbouring days may not be built yet, and days may be rebuilt in any order
    select
        session_id,
        event_date,
        event_id,
        window_time,
        occurred_at,
        event_type,
        channel,
        user_id,
        page,
        {{ funnel_steps_of('event_type') }} as steps
    from (
        {{ events_once(back=2 * lookaround, ahead=lookaround) }}
    )
    where {{ in_rebuilt_days('event_date', back=2 * lookaround, ahead=lookaround) }}

),

-- a session starts on a day that has none of its events on the lookaround_days before it; the event before
-- the first is taken to be of 1970. In processing time two rows of one id may have landed together, of two days far
-- apart: then occurred_at tells them apart
placed as (

    select
        *,
        row_number() over in_session as place,
        lagInFrame(event_date) over in_session as previous_date,
        if(event_date - previous_date > {{ lookaround }}, event_date, toDate(0)) as start_date
    from events
    window in_session as (
        partition by session_id
        order by event_date, window_time, event_id, occurred_at
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
            order by event_date, window_time, event_id, occurred_at
            rows between unbounded preceding and current row
        ) as last_start_date,
        if(event_date - last_start_date <= {{ lookaround }}, last_start_date, event_date) as session_date
    from placed

),

sessions as (

    select
        session_date,
        session_id,
        min(window_time) as started_at,
        max(window_time) as ended_at,
        toLowCardinality(argMin(channel, place)) as channel,
        nullIf(argMaxIf(assumeNotNull(user_id), place, user_id is not null), '') as user_id,
        count() as events,
        uniqExact(page) as pages,
        nullIf(argMinIf(assumeNotNull(page), place, page is not null), '') as entry_page,
        nullIf(argMaxIf(assumeNotNull(page), place, page is not null), '') as exit_page,
        countIf(event_type in ({{ quoted_list(headrace.setting('conversion_event_types')) }})) as conversions,
        -- the furthest step that was taken after all steps before it
        arrayFold(
            (reached, types) -> if(has(types, reached + 1), toUInt8(reached + 1), reached),
            arrayMap(step -> step.2, arraySort(groupArrayIf((place, steps), notEmpty(steps)))),
            toUInt8(0)
        ) as funnel_step
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
    conversions,
    funnel_step
from sessions
