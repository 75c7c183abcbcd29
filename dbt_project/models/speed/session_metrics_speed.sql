{{ config(tags=['events', 'speed']) }}
{%- set lookaround = headrace.setting('lookaround_days') | int %}

-- the events of all sessions that the speed layer reaches need not fit into memory: nothing here is sorted beyond one
-- session, and of what is grouped the rest waits on disk
with kept as (

    select
        session_id,
        groupUniqArray(event_date) as days,
        groupArray((event_date, user_id, finalizeAggregation(arrived))) as parts,
        -- apart from the events, so that session_metrics_live need not keep them to know who is still there
        groupArray((event_date, arrayMax(event -> event.1, finalizeAggregation(arrived)))) as ends
    from {{ every_shard(ref('speed_sessions')) }}
    group by session_id
    settings max_bytes_before_external_group_by = {{ 256 * 1024 * 1024 }}

),

-- filed by day as in session_metrics: a session starts on a day that has none of its events on the lookaround_days
-- before it
started as (

    select
        *,
        arrayFilter(
            day -> not arrayExists(other -> day - other between 1 and {{ lookaround }}, days), days
        ) as start_dates
    from kept

),

-- and takes in its events up to lookaround_days later. A day beyond them is a row of its own
dated as (

    select
        *,
        arrayFilter(
            day -> has(start_dates, day)
            or not arrayExists(start -> day - start between 1 and {{ lookaround }}, start_dates),
            days
        ) as session_dates
    from started

),

filed as (

    select
        session_id,
        session_date,
        parts,
        ends,
        session_date + if(has(start_dates, session_date), {{ lookaround }}, 0) as last_date
    from dated
    array join session_dates as session_date
    -- sessions of earlier days may have begun before the first event that is kept
    where session_date >= toDate(now('UTC')) - {{ headrace.setting('speed_days') | int }}

),

arrived as (

    select
        session_date,
        session_id,
        arrayMax(
            part -> part.2, arrayFilter(part -> part.1 between session_date and last_date, ends)
        ) as ended_at,
        arraySort(
            event -> (event.1, event.2),
            arrayFlatten(
                arrayMap(
                    part -> arrayMap(
                        event -> (event.1, event.2, event.3, event.4, event.5, part.2), part.3
                    ),
                    arrayFilter(part -> part.1 between session_date and last_date, parts)
                )
            )
        ) as repeated
    from filed

),

ordered as (

    select
        session_date,
        session_id,
        ended_at,
        -- what was sent again with the same time counts once
        arrayFilter(
            (event, nth) -> nth = 1,
            repeated,
            arrayEnumerateUniq(
                arrayMap(event -> event.1, repeated), arrayMap(event -> event.2, repeated)
            )
        ) as in_order,
        in_order[1] as first_event,
        arrayFilter(page -> page is not null, arrayMap(event -> event.5, in_order)) as seen,
        arrayFilter(known -> known != '', arrayMap(event -> event.6, in_order)) as users
    from arrived

)

select
    session_date,
    session_id,
    first_event.1 as started_at,
    ended_at,
    dateDiff('microsecond', started_at, ended_at) / 1e6 as duration_seconds,
    toLowCardinality(first_event.4) as channel,
    if(empty(users), null, users[-1]) as user_id,
    length(in_order) as events,
    toUInt64(length(arrayDistinct(seen))) as pages,
    if(empty(seen), null, seen[1]) as entry_page,
    if(empty(seen), null, seen[-1]) as exit_page,
    toBool(events = 1) as is_bounce,
    toUInt64(
        arrayCount(event -> event.3 in ({{ quoted_list(headrace.setting('conversion_event_types')) }}), in_order)
    ) as conversions,
    -- the furthest step that was taken after all steps before it
    arrayFold(
        (reached, types) -> if(has(types, reached + 1), toUInt8(reached + 1), reached),
        arrayMap(event -> {{ funnel_steps_of('event.3') }}, in_order),
        toUInt8(0)
    ) as funnel_step
from ordered
