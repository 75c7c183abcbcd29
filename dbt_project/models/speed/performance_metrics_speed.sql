{{ config(tags=['events', 'speed']) }}

with folded as (

    select
        event_date,
        window_start,
        toUInt32({{ headrace.setting('window_seconds') }}) as window_seconds,
        page,
        channel,
        sum(events) as events,
        quantilesExactInclusiveMerge(0.5, 0.75, 0.95, 0.99)(quantiles) as quantiles,
        toFloat64(max(max_ms)) as max_ms,
        sum(slow_events) as slow_events
    from {{ every_shard(ref('speed_performance_windows')) }}
    group by event_date, window_start, page, channel

)

{{ performance_columns('folded') }}
