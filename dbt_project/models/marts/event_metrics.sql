{{
    config(
        tags=['events'],
        partition_by='event_date',
        order_by=['event_type', 'channel', 'window_start'],
    )
}}

with events as (

    select
        event_date,
        {{ window_start('occurred_at') }} as window_start,
        event_type,
        channel,
        session_id,
        user_id
    from {{ ref('int_events_deduplicated') }}
    where {{ in_rebuilt_days('event_date') }}

)

select
    event_date,
    window_start,
    toUInt32({{ var('window_seconds') }}) as window_seconds,
    event_type,
    channel,
    count() as events,
    uniqExact(user_id) as unique_users,
    uniqExact(session_id) as unique_sessions
from events
group by event_date, window_start, event_type, channel
