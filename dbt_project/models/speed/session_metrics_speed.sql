{{ config(tags=['events', 'speed']) }}
{%- set lookaround = var('lookaround_days') | int %}

-- filed by day as in session_metrics; rows of a day that are not merged yet are filed alike
with placed as (

    select
        session_id,
        event_date,
        user_id,
        finalizeAggregation(arrived) as events,
        lagInFrame(event_date) over in_session as previous_date,
        if(event_date - previous_date > {{ lookaround }}, event_date, toDate(0)) as start_date
    from {{ every_shard(ref('speed_sessions')) }}
    window in_session as (
        partition by session_id
        order by event_date
        rows between unbounded preceding and current row
    )

),

filed as (

    select
        *,
        max(start_date) over (
            partition by session_id
            order by event_date
            rows between unbounded preceding and current row
        ) as last_start_date,
        if(event_date - last_start_date <= {{ lookaround }}, last_start_date, event_date) as session_date
    from placed

),

arrived as (

    select
        session_date,
        session_id,
        groupArrayArray(
            arrayMap(event -> (event.1, event.2, event.3, event.4, event.5, filed.user_id), filed.events)
        ) as in_any_order
    from filed
    -- sessions of earlier days may have begun before the first event that is kept
    where session_date >= toDate(now('UTC')) - {{ var('speed_days') | int }}
    group by session_date, session_id

),

ordered as (

    select
        session_date,
        session_id,
        -- apart from the order, so that session_metrics_live need not sort to know who is still there
        arrayMax(arrayMap(event -> event.1, in_any_order)) as ended_at,
        arraySort(event -> (event.1, event.2), in_any_order) as repeated,
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
        arrayCount(event -> event.3 in ({{ quoted_list(var('conversion_event_types')) }}), in_order)
    ) as conversions,
    -- the furthest step that was taken after all steps before it
    arrayFold(
        (reached, types) -> if(has(types, reached + 1), toUInt8(reached + 1), reached),
        arrayMap(event -> {{ funnel_steps_of('event.3') }}, in_order),
        toUInt8(0)
    ) as funnel_step
from ordered
