{{
    config(
        materialized='materialized_view',
        tags=['events', 'speed'],
        engine='AggregatingMergeTree',
        partition_by='event_date',
        order_by=['event_type', 'channel', 'window_start'],
        ttl='event_date + toIntervalDay(' ~ (headrace.setting('speed_days') | int + 1) ~ ')',
        settings={deduplication_window(): 10000},
    )
}}

select
    {{ window_date('landed.event_date') }} as event_date,
    {{ window_start(window_time(), headrace.setting('window_seconds') | int) }} as window_start,
    event_type,
    channel,
    sumSimpleState(toUInt64(1)) as events,
    uniqExactState(user_id) as users,
    uniqExactState(session_id) as sessions
from {{ raw_inserts('events') }} as landed
{{ seen_before('events', 'event_date', ref('speed_event_keys')) }}
where {{ recent() }}
    and {{ is_first('event_date') }}
group by event_date, window_start, event_type, channel
