{{ config(materialized='view') }}
{%- set streams = [('events', 'event_date'), ('metrics', 'metric_date')] %}

with landed as (

    select * from {{ ref('landings_daily') }}

),

counted as (

    {%- for stream, day in streams if headrace.has_stream(stream) %}
    select '{{ stream }}' as stream, {{ day }} as day, count() as counted
    from {{ ref('int_' ~ stream ~ '_deduplicated') }}
    group by day
    {{ 'union all' if not loop.last }}
    {%- endfor %}

),

reasons as (

    select
        stream,
        rejected_date as day,
        arrayJoin(failed_checks) as failed_check,
        count() as records
    from {{ ref('stg_rejected') }}
    group by stream, day, failed_check

),

rejected as (

    select
        stream,
        rejected_date as day,
        count() as rejected
    from {{ ref('stg_rejected') }}
    group by stream, day

),

by_reason as (

    select
        stream,
        day,
        mapFromArrays(
            arrayMap(reason -> reason.1, arraySort(groupArray((failed_check, records)))),
            arrayMap(reason -> reason.2, arraySort(groupArray((failed_check, records))))
        ) as rejected_by_reason
    from reasons
    group by stream, day

),

days as (

    select stream, day from landed
    union distinct
    select stream, day from rejected

)

select
    days.stream as stream,
    days.day as day,
    landed.landed as landed,
    toUInt64(greatest(landed.landed - counted.counted, 0)) as duplicates,
    landed.late as late,
    if(landed.landed > 0, landed.lateness_p50_seconds, null) as lateness_p50_seconds,
    if(landed.landed > 0, landed.lateness_p99_seconds, null) as lateness_p99_seconds,
    if(landed.landed > 0, landed.lateness_max_seconds, null) as lateness_max_seconds,
    if(landed.landed > 0, landed.last_landed_at, null) as last_landed_at,
    rejected.rejected as rejected,
    by_reason.rejected_by_reason as rejected_by_reason
from days
left join landed on days.stream = landed.stream and days.day = landed.day
left join counted on days.stream = counted.stream and days.day = counted.day
left join rejected on days.stream = rejected.stream and days.day = rejected.day
left join by_reason on days.stream = by_reason.stream and days.day = by_reason.day
