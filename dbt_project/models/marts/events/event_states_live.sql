{{ config(materialized='view', schema='speed') }}
{%- set batch %}
    (
        select
            event_date,
            {{ window_start('window_time', headrace.setting('window_seconds') | int) }} as window_start,
            toUInt32({{ headrace.setting('window_seconds') }}) as window_seconds,
            event_type,
            channel,
            count() as events,
            uniqExactState(user_id) as users,
            uniqExactState(session_id) as sessions
        from {{ ref('events_history') }}
        group by event_date, window_start, event_type, channel
    )
{%- endset %}
{%- set speed %}
    (
        select
            event_date,
            window_start,
            toUInt32({{ headrace.setting('window_seconds') }}) as window_seconds,
            event_type,
            channel,
            sum(events) as events,
            uniqExactMergeState(users) as users,
            uniqExactMergeState(sessions) as sessions
        from {{ every_shard(ref('speed_event_windows')) }}
        group by event_date, window_start, event_type, channel
    )
{%- endset %}

{{ batch_then_speed(batch, speed, 'events', 'event_date') }}
