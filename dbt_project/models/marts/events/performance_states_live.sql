{{ config(materialized='view', schema='speed') }}
{%- set batch %}
    (
        select
            event_date,
            {{ window_start('window_time', headrace.setting('window_seconds') | int) }} as window_start,
            toUInt32({{ headrace.setting('window_seconds') }}) as window_seconds,
            coalesce(events_history.page, '') as page,
            channel,
            quantilesExactInclusiveState(0.5, 0.75, 0.95, 0.99)(assumeNotNull(duration_ms)) as quantiles
        from {{ ref('events_history') }} as events_history
        where duration_ms is not null
        group by event_date, window_start, page, channel
    )
{%- endset %}
{%- set speed %}
    (
        select
            event_date,
            window_start,
            toUInt32({{ headrace.setting('window_seconds') }}) as window_seconds,
            page,
            channel,
            quantilesExactInclusiveMergeState(0.5, 0.75, 0.95, 0.99)(quantiles) as quantiles
        from {{ every_shard(ref('speed_performance_windows')) }}
        group by event_date, window_start, page, channel
    )
{%- endset %}

{{ batch_then_speed(batch, speed, 'events', 'event_date') }}
