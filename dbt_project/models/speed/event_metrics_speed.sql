{{ config(tags=['events', 'speed']) }}

select
    event_date,
    window_start,
    toUInt32({{ headrace.setting('window_seconds') }}) as window_seconds,
    event_type,
    channel,
    sum(events) as events,
    uniqExactMerge(users) as unique_users,
    uniqExactMerge(sessions) as unique_sessions
from {{ every_shard(ref('speed_event_windows')) }}
group by event_date, window_start, event_type, channel
