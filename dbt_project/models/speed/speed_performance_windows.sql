{{
    config(
        materialized='materialized_view',
        tags=['events', 'speed'],
        engine='AggregatingMergeTree',
        partition_by='event_date',
        order_by=['channel', 'page', 'window_start'],
        ttl='event_date + toIntervalDay(' ~ (headrace.setting('speed_days') | int + 1) ~ ')',
        settings={deduplication_window(): 10000},
    )
}}

select
    {{ window_date('landed.event_date') }} as event_date,
    {{ window_start(window_time(), headrace.setting('window_seconds') | int) }} as window_start,
    coalesce({{ page() }}, '') as page,
    channel,
    sumSimpleState(toUInt64(1)) as events,
    quantilesExactInclusiveState(0.5, 0.75, 0.95, 0.99)(assumeNotNull(duration_ms)) as quantiles,
    maxSimpleState(assumeNotNull(duration_ms)) as max_ms,
    sumSimpleState(toUInt64(assumeNotNull(duration_ms) > {{ headrace.setting('slow_ms') }})) as slow_events
from {{ raw_inserts('events') }} as landed
{{ seen_before('events', 'event_date', ref('speed_event_keys')) }}
where {{ recent() }}
    and {{ is_first('event_date') }}
    and duration_ms is not null
group by event_date, window_start, page, channel
